"""The optimizer's short step is torch's own, bit for bit, whatever happens between steps."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW


@pytest.fixture(scope="module")
def fused(engine):
    return engine("machine.torch_internals")


SHAPES = ((33, 7), (64,), (5,), (129,))


def build(groups=1, kind=AdamW, **options):
    """The same parameters each time, dealt to groups that differ in decay."""
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    return kind(
        [{"params": params[n::groups], "weight_decay": 0.01 * n} for n in range(groups)],
        **{"lr": 1e-2, "fused": True, **options},
    )


def train(optimizer, steps=6, start=0, missing=()):
    """missing: (step, parameter) pairs without a gradient."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for step in range(start, start + steps):
        for number, param in enumerate(params):
            generator = torch.Generator().manual_seed(100 * step + number)
            grad = torch.randn(param.shape, generator=generator)
            param.grad = None if (step, number) in missing else grad
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 / (step + 1)
        optimizer.step()


def assert_equal(ours, theirs):
    ours, theirs = ours.state_dict(), theirs.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    for number, state in theirs["state"].items():
        assert all(torch.equal(value, ours["state"][number][key]) for key, value in state.items())


def assert_same_weights(ours, theirs):
    pairs = zip(ours.param_groups, theirs.param_groups, strict=True)
    assert all(torch.equal(a, b) for o, t in pairs for a, b in zip(o["params"], t["params"], strict=True))


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(
    "missing", [(), [(0, 1)], [(2, 0), (3, 2)], [(step, 3) for step in range(6)], [(4, n) for n in range(4)]]
)
@pytest.mark.parametrize("kind", [AdamW, Adam])
def test_equal_to_torch(fused, groups, maximize, missing, kind):
    ours, theirs = (build(groups, kind, maximize=maximize) for _ in range(2))
    fused.shorten(ours)
    assert type(ours) is {AdamW: fused.FusedAdamW, Adam: fused.FusedAdam}[kind]
    for optimizer in (ours, theirs):
        train(optimizer, missing=missing)
    assert_equal(ours, theirs)
    assert_same_weights(ours, theirs)


def test_equal_after_loading_and_with_a_new_group(fused):
    ours, theirs = build(), build()
    fused.shorten(ours)
    for optimizer in (ours, theirs):
        train(optimizer, 3)
        saved = copy.deepcopy(optimizer.state_dict())
        train(optimizer, 2, start=3)
        optimizer.load_state_dict(saved)
        train(optimizer, 2, start=5)
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(7))]})
        train(optimizer, 3, start=7)
    assert_equal(ours, theirs)
    assert_same_weights(ours, theirs)


def widen(optimizer):
    for state in optimizer.state.values():
        state["step"] = state["step"].reshape(1)


@pytest.mark.parametrize(
    "change",
    [
        lambda optimizer: optimizer.state.clear(),
        widen,
        lambda optimizer: optimizer.add_param_group({"params": [nn.Parameter(torch.ones(7))], "amsgrad": True}),
    ],
    ids=["its state is forgotten", "counts of another shape", "a group of another kind"],
)
def test_equal_after_a_change_from_outside(fused, change):
    ours, theirs = build(), build()
    fused.shorten(ours)
    for optimizer in (ours, theirs):
        train(optimizer, 3)
        change(optimizer)
        train(optimizer, 3, start=3)
    for (one, state), (other, expected) in zip(ours.state.items(), theirs.state.items(), strict=True):
        assert torch.equal(one, other)
        assert all(
            torch.equal(value.reshape(()) if key == "step" else value, state[key]) for key, value in expected.items()
        )


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "nesterov": True}, {"fused": False, "momentum": 0.5}])
def test_sgd_is_torchs_with_its_hooks(fused, options):
    ours, theirs, seen = build(kind=SGD, **options), build(kind=SGD, **options), []
    fused.shorten(ours)
    assert type(ours) is fused.QuickSGD
    ours.register_step_post_hook(lambda *_: seen.append("hook"))
    for optimizer in (ours, theirs):
        train(optimizer, 2)
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        train(optimizer, 2, start=2)
    assert_same_weights(ours, theirs)
    assert ours.step(lambda: torch.tensor(1.0, requires_grad=True).exp()) is not None
    assert seen == ["hook"] * 5


def test_sgd_under_fp16_is_torchs(fused):
    weights = []
    for scale in (1.0, 4.0):
        optimizer, scaler = build(kind=SGD, momentum=0.9, dampening=0.5), None
        if scale > 1:
            fused.shorten(optimizer)
            scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        params = [p for group in optimizer.param_groups for p in group["params"]]
        for _ in range(3):
            optimizer.zero_grad()
            loss = sum(p.square().sum() for p in params)
            (scaler.scale(loss) if scaler else loss).backward()
            if scaler:
                scaler.step(optimizer)
                scaler.update()
            else:
                optimizer.step()
        weights.append(torch.cat([p.detach().flatten() for p in params]))
    assert torch.equal(*weights)


def test_a_first_step_that_fp16_skips_leaves_momentum_at_zero(fused, monkeypatch):
    optimizer = build(kind=SGD, momentum=0.9)
    fused.shorten(optimizer)
    plain, scaler = build(kind=SGD, momentum=0.9), torch.amp.GradScaler("cpu", init_scale=4.0)
    # What lies in memory that torch leaves uninitialised.
    monkeypatch.setattr(torch, "empty_like", lambda t, **options: torch.full_like(t, float("nan"), **options))
    params, others = ([p for group in o.param_groups for p in group["params"]] for o in (optimizer, plain))
    for factor in (float("inf"), 1.0, -2.0):
        optimizer.zero_grad()
        scaler.scale(sum((factor * p).square().sum() for p in params)).backward()
        scaler.step(optimizer)
        if factor < float("inf"):
            plain.zero_grad()
            sum((factor * p).square().sum() for p in others).backward()
            plain.step()
        scaler.update()
    assert_same_weights(optimizer, plain)


def test_torch_goes_on_from_its_state(fused):
    """Our step counts lie in one tensor, of which each parameter's is a part."""
    ours, theirs = build(), build()
    fused.shorten(ours)
    for optimizer in (ours, theirs):
        train(optimizer, 3)
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    plain, copied = build(), build()
    plain.load_state_dict(torch.load(file))
    copied.load_state_dict(copy.deepcopy(ours.state_dict()))
    for optimizer in (plain, copied, theirs):
        train(optimizer, 2, start=3)
    assert_equal(plain, theirs)
    assert_equal(copied, theirs)


def test_hooks_and_closures_are_called(fused):
    optimizer, seen = build(), []
    fused.shorten(optimizer)
    train(optimizer, 1)
    handle = optimizer.register_step_post_hook(lambda *_: seen.append("hook"))
    train(optimizer, 2, start=1)
    handle.remove()
    assert optimizer.step(lambda: seen.append("closure") or torch.tensor(1.0)) == 1.0
    assert seen == ["hook", "hook", "closure"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (AdamW, {"amsgrad": True}),
        (AdamW, {"fused": False}),
        (AdamW, {"lr": torch.tensor(0.1)}),
        (Adam, {"decoupled_weight_decay": True}),
    ],
)
def test_what_differs_is_left_to_torch(fused, kind, options):
    optimizer = build(kind=kind, **options)
    fused.shorten(optimizer)
    assert type(optimizer) is kind


class Own(AdamW):
    pass


def test_your_own_kind_stays_what_it_is(fused):
    optimizer = Own([nn.Parameter(torch.ones(2))], fused=True)
    fused.shorten(optimizer)
    assert type(optimizer) is Own


def test_a_plan_of_steps_uses_it(looped):
    assert type(looped("max_steps=1").parts.optimizer).__name__ == "FusedAdamW"
