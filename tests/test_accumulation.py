"""A batch in several micro-batches: each is weighted by what its means were taken over."""

import pytest
import torch
from helpers.runs import rows
from torch import nn


def test_micro_batches_are_weighted_by_what_their_means_were_taken_over(looped_on_device, engine):
    api = engine("api")

    count = torch.zeros(())

    def masked(model, batch, ctx):
        images, labels = batch
        keep = labels < 5  # a different number in every micro-batch
        nonlocal count
        count = count.to(labels.device).copy_(keep.sum())  # overwritten by the next, as a CUDA graph's are
        losses = nn.functional.cross_entropy(model(images), labels, reduction="none")
        return {"loss": api.Mean((losses * keep).sum() / keep.sum().clamp(min=1), count)}

    weights = []
    for accumulate in (1, 4):
        loop = looped_on_device(
            "model=mlp", f"accumulate={accumulate}", "max_steps=5", "optimizer=sgd", "monitor=val/loss"
        )
        loop.parts.task.training_step = loop.parts.task.validation_step = masked
        loop.fit()
        weights.append(torch.cat([p.detach().flatten().cpu() for p in loop.parts.model.parameters()]))
        logged = rows(loop.run.folder)[0]["train/loss"]
        assert logged == pytest.approx(2.2, abs=0.5)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)


def test_gradients_of_micro_batches_outlive_the_next_one_of_a_cuda_graph(looped_on_device, monkeypatch):
    """A CUDA graph overwrites the memory of its gradients when the model is called again."""
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    weights = []
    for compiled in ("false", "reduce-overhead"):
        loop, given = looped_on_device("model=mlp", "accumulate=4", f"compile={compiled}", "max_steps=2"), []

        def overwriting(images, model=loop.forward, given=given):
            for grad in given:
                grad.fill_(float("nan"))
            given.clear()
            return model(images)

        if compiled != "false":
            loop.forward = overwriting
            for parameter in loop.parts.model.parameters():
                parameter.register_post_accumulate_grad_hook(lambda p, given=given: given.append(p.grad))
        loop.fit()
        assert (len(given) > 0) == (compiled != "false")
        weights.append(torch.cat([p.detach().flatten().cpu() for p in loop.parts.model.parameters()]))
    assert torch.equal(*weights)


def test_an_incomplete_last_batch_counts_by_its_samples(looped_on_device):
    weights = []
    for accumulate in (1, 4):
        loop = looped_on_device(
            "model=mlp", f"accumulate={accumulate}", "drop_last=false", "batch_size=100", "epochs=2", "optimizer=sgd"
        )
        loop.fit()
        weights.append(torch.cat([p.detach().flatten().cpu() for p in loop.parts.model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)
