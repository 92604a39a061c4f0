"""Every sample of a validation counts once, and decides when a run stops early."""

import pytest
import torch
from helpers import snippets
from helpers.runs import result, rows, the_run
from torch import nn


def test_every_validation_sample_counts_once(looped_on_device, device):
    loop = looped_on_device("batch_size=48", "epochs=1")
    loop.fit()
    model = loop.parts.model.eval()
    dataset = loop.parts.data.split("val")
    images, labels = zip(*(dataset[i] for i in range(len(dataset))), strict=True)
    with torch.no_grad():
        logits = model(torch.stack(images).to(device)).cpu()
    expected = (logits.argmax(1) == torch.tensor(labels)).double().mean().item()
    (row,) = [row for row in rows(loop.run.folder) if "val/acc" in row]
    assert row["val/acc"] == pytest.approx(expected, abs=1e-7)
    expected = nn.functional.cross_entropy(logits, torch.tensor(labels)).item()
    assert row["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_a_validation_changes_no_buffer_of_the_loss(train, workspace):
    snippets.add(workspace, "digits/centred.py")
    options = ("epochs=2", "limit_train_batches=4", "model=mlp", "logger=none", "loss=.centred.Centred")
    for name, often in (("often", "val_every_steps=1"), ("seldom", "val_every_epochs=2")):
        assert train(*options, often, f"name={name}").code == 0
    states = [
        torch.load(next((the_run(workspace, name) / "checkpoints").glob("step-*8.pt"))) for name in ("often", "seldom")
    ]
    assert torch.equal(*(state["loss"]["centre"] for state in states))
    assert states[0]["loss"]["centre"].abs().sum() > 0
    assert (
        result(the_run(workspace, "often"))["weights_sha256"] == result(the_run(workspace, "seldom"))["weights_sha256"]
    )


def test_early_stopping(train, workspace):
    options = ("early_stopping_patience=1", "epochs=30", "logger=none", "lr=0.02")
    assert train(*options, "name=whole").code == 0
    whole = the_run(workspace, "whole")
    values = [row["val/acc"] for row in rows(whole) if "val/acc" in row]
    assert len(values) < 30
    assert max(values[:-2]) == max(values), "the last two were not better"
    assert train(*options, "name=cut", "max_minutes=0.0001").code == 75
    assert train(*options, "name=cut", "resume=auto").code == 0
    assert result(the_run(workspace, "cut")) == result(whole)


def test_metrics_of_torchmetrics(train, workspace):
    task = workspace / "digits/task.py"
    own, rest = task.read_text().split("\n\n\nclass MultiLabel")
    task.write_text(
        own
        + """
    def validation_step(self, model, batch, ctx):
        ctx.metrics["f1"].update(model(batch[0]), batch[1])
        return super().validation_step(model, batch, ctx)

    def metrics(self, info):
        from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
        return {"f1": MulticlassF1Score(info["classes"])}
"""
        + "\n\nclass MultiLabel"
        + rest
    )
    done = train("epochs=2", "logger=none", "monitor=val/f1")
    assert done.code == 0, done.out
    values = [row["val/f1"] for row in rows(the_run(workspace)) if "val/f1" in row]
    assert result(the_run(workspace))["best"] == max(values)
    assert 0 < values[0] <= 1
