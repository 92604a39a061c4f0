"""The training step: equal to a loop written by hand, its order, and the weights that are averaged."""

import pytest
import torch
from helpers.machine import NEEDS_COMPILER
from helpers.runs import the_run
from torch import nn


def batches_of(loop, steps):
    """What the loop's training reads, as (images, labels)."""
    read = iter(loop.parts.train.read(0, steps))
    return [[next(read) for _ in loop.parts.train.plan.counts(step)] for step in range(steps)]


GROUPS = "optimizer.groups=[{name: head, match: 'layers.4.*'}, {name: rest, match: '*', lr_scale: 0.1}]"


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_equal_to_a_loop_written_by_hand(looped_on_device, device, optimizer, accumulate):
    loop = looped_on_device(
        "model=mlp", f"optimizer={optimizer}", GROUPS, "scheduler.warmup_steps=5", "scheduler.warmup_epochs=0",
        f"accumulate={accumulate}", "clip_grad_norm=0.5", "epochs=1", "lr=0.05",
    )  # fmt: skip
    import copy

    model = copy.deepcopy(loop.parts.model)
    steps = loop.parts.total_steps
    data = batches_of(loop, steps)
    rates = []
    inner_step = loop.parts.optimizer.step
    loop.parts.optimizer.step = lambda *a, **k: (
        rates.append([g["lr"] for g in loop.parts.optimizer.param_groups]),
        inner_step(*a, **k),
    )
    loop.fit()

    head = list(model.layers[4].parameters())
    rest = [p for n, p in model.named_parameters() if not n.startswith("layers.4.")]
    if optimizer == "sgd":
        by_hand = torch.optim.SGD(
            [{"params": head}, {"params": rest}], lr=1, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
        )
    else:
        by_hand = torch.optim.AdamW([{"params": head}, {"params": rest}], lr=1, weight_decay=0.05, fused=True)
    for step in range(steps):
        for group, rate in zip(by_hand.param_groups, rates[step], strict=True):
            group["lr"] = rate
        by_hand.zero_grad()
        for images, labels in data[step]:
            loss = nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
            (loss / accumulate).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        by_hand.step()
    assert rates[0] == pytest.approx([0.05 / 6, 0.005 / 6])
    for (name, mine), (_, theirs) in zip(model.named_parameters(), loop.parts.model.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_the_order_of_a_step(looped_on_device):
    loop = looped_on_device("accumulate=2", "ema_decay=0.9", "clip_grad_norm=1", "max_steps=2", "val_every_epochs=0")
    p, order = loop.parts, []

    def spy(owner, name, label):
        inner = getattr(owner, name)
        setattr(owner, name, lambda *a, **k: (order.append(label), inner(*a, **k))[1])

    def next_batch(*args):
        is_empty = all(parameter.grad is None for parameter in p.parameters.values())
        order.append("first batch, no gradients" if is_empty else "next batch")
        return read(*args)

    read, loop.next_batch = loop.next_batch, next_batch
    spy(loop, "backward", "backward")
    spy(loop, "clip_gradients", "clip")
    p.optimizer.register_step_post_hook(lambda *_: order.append("optimizer"))
    spy(p.scheduler, "step", "scheduler")
    spy(p.averaged, "update", "ema")
    loop.fit()
    parts = ["first batch, no gradients", "backward", "next batch", "backward"]
    once = [*parts, "clip", "optimizer", "scheduler", "ema"]
    assert order == ["scheduler", *once, *once], "the schedule sets the rates of the first step, too"


def test_averaged_weights(looped_on_device):
    loop = looped_on_device("ema_decay=0.9", "max_steps=3")
    expected = {n: p.detach().clone() for n, p in loop.parts.model.named_parameters()}
    inner = loop.parts.averaged.update

    def update(model):
        inner(model)
        for name, p in model.named_parameters():
            expected[name].lerp_(p.detach(), 0.1)

    loop.parts.averaged.update = update
    loop.fit()
    for name, p in loop.parts.averaged.model.named_parameters():
        torch.testing.assert_close(p, expected[name])
    buffers = dict(loop.parts.model.named_buffers())
    assert {b.dtype for b in buffers.values()} == {torch.float32, torch.int64}
    for name, b in loop.parts.averaged.model.named_buffers():
        assert torch.equal(b, buffers[name])


def test_averaged_buffers_take_a_call_for_each_type(looped_on_device, monkeypatch):
    loop, calls = looped_on_device("ema_decay=0.9", "max_steps=1"), []
    copy = torch._foreach_copy_
    monkeypatch.setattr(
        torch, "_foreach_copy_", lambda own, *rest, **k: (calls.append(len(own)), copy(own, *rest, **k))
    )
    loop.parts.averaged.update(loop.parts.model)
    assert len(calls) == 2
    assert sum(calls) == len(list(loop.parts.model.buffers()))


def test_values_are_clipped(looped_on_device):
    loop = looped_on_device("clip_grad_value=0.001", "max_steps=1", "val_every_epochs=0")
    largest = []
    loop.parts.optimizer.register_step_pre_hook(
        lambda *_: largest.append(max(p.grad.abs().max().item() for p in loop.parts.parameters.values()))
    )
    loop.fit()
    assert largest == [pytest.approx(0.001)]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_optimizers_are_fused(looped_on_device, optimizer):
    assert looped_on_device(f"optimizer={optimizer}").parts.optimizer.defaults["fused"] is True


@NEEDS_COMPILER
def test_compiled_state_has_clean_keys(train, workspace):
    done = train("epochs=1", "logger=none", "compile=true", "max_steps=2", "model=mlp")
    assert done.code == 0, done.out
    state = torch.load(the_run(workspace) / "checkpoints/best.pt", weights_only=True)
    assert all("_orig_mod" not in key for key in [*state["model"], *state["optimizer"]])
