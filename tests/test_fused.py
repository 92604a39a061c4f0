"""The optimizer's short step equals torch's own bit for bit, also if states and options change between steps."""

import ast
import copy
import io
from collections.abc import Iterator

import pytest
import torch
from helpers.runs import assert_stopped_as_whole
from torch import nn
from torch.optim import SGD, Adam, AdamW


@pytest.fixture(scope="module")
def fused(engine):
    return engine("machine.torch_internals")


SHAPES = ((33, 7), (64,), (5,), (129,))


def build(groups=1, kind=AdamW, **options):
    """An optimizer over the same parameters each time, dealt to groups that differ in decay."""
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
            lr = 1e-2 / (step + 1)
            group["lr"] = torch.tensor(lr) if isinstance(group["lr"], torch.Tensor) else lr
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
    ours, theirs = (build(groups, its, maximize=maximize) for its in (fused.short_class(kind), kind))
    assert type(ours) is {AdamW: fused.ShortAdamW, Adam: fused.ShortAdam}[kind]
    for optimizer in (ours, theirs):
        train(optimizer, missing=missing)
    assert_equal(ours, theirs)
    assert_same_weights(ours, theirs)


def test_equal_after_loading_and_with_a_new_group(fused):
    ours, theirs = build(kind=fused.short_class(AdamW)), build()
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
    ours, theirs = build(kind=fused.short_class(AdamW)), build()
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
    ours, theirs, seen = build(kind=fused.short_class(SGD), **options), build(kind=SGD, **options), []
    assert type(ours) is fused.ShortSGD
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
        kind = fused.short_class(SGD) if scale > 1 else SGD
        optimizer = build(kind=kind, momentum=0.9, dampening=0.5)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale) if scale > 1 else None
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
    optimizer = build(kind=fused.short_class(SGD), momentum=0.9)
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
    ours, theirs = build(kind=fused.short_class(AdamW)), build()
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
    optimizer, seen = build(kind=fused.short_class(AdamW)), []
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
        (Adam, {"differentiable": True, "fused": False}),
        (SGD, {"differentiable": True, "fused": False, "momentum": 0.9}),
    ],
)
def test_other_options_take_torchs_step(fused, monkeypatch, kind, options):
    def refuse(*_):
        raise AssertionError("the short step was taken")

    monkeypatch.setattr(fused.ShortAdam, "_collect", refuse)
    ours, theirs = build(kind=fused.short_class(kind), **options), build(kind=kind, **options)
    for optimizer in (ours, theirs):
        if optimizer.defaults["differentiable"]:  # it changes weights within autograd's graph
            for group in optimizer.param_groups:
                group["params"] = [param.detach() for param in group["params"]]
        train(optimizer)
    assert_equal(ours, theirs)
    assert_same_weights(ours, theirs)


class Own(AdamW):
    pass


def test_other_classes_are_built_as_they_are(fused):
    for kind in (Own, torch.optim.Adagrad, build):
        assert fused.short_class(kind) is kind


def test_a_run_takes_the_short_step_and_is_stored_as_torchs(looped):
    loop = looped("max_steps=1")
    assert type(loop.parts.optimizer).__name__ == "ShortAdamW"
    assert "_target_: torch.optim.AdamW" in (loop.run.folder / "config.yaml").read_text()


# ---------------------------------------------------------------- names that torch does not promise

DOOR = "engine/machine/torch_internals.py"
PYTHONS = {"_asdict", "_exit", "_fields", "_make", "_replace"}
UNDOCUMENTED = {"unsafe_split_with_sizes", "profile_hook_step", "inlined_graph", "__wrapped__"}


def private_names(tree: ast.AST) -> Iterator[str]:
    """Names of others that begin with one underline, except for Python's own; `_target_` is one of a config."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names = [] if ast.unparse(node.value) in ("self", "cls") else [node.attr]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr"):
            names = [str(node.args[1].value)] if isinstance(node.args[1], ast.Constant) else []
        else:
            continue
        for name in names:
            private = name.startswith("_") and not name.endswith("_") and name not in PYTHONS
            if private or name in UNDOCUMENTED:
                yield f"line {node.lineno}: {name}"


def test_private_names_are_behind_one_door(project):
    found = {}
    for path in (project / "digits").rglob("*.py"):
        tree = ast.parse(path.read_text())
        found[path.relative_to(project / "digits").as_posix()] = list(private_names(tree))
    assert len(found.pop(DOOR)) > 10
    assert {path: names for path, names in found.items() if names} == {}


USED = """
import sys
from digits.engine.machine import torch_internals
torch_internals.use_public_paths()
"""
CHOICES = {
    "adamw": ("optimizer=adamw", "ema_decay=0.9", "clip_grad_norm=1"),
    "sgd": ("optimizer=sgd", "accumulate=2", "ema_decay=0.9", "clip_grad_norm=0.5"),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_public_paths_give_the_same_bits(train, workspace, choice):
    options = (
        *CHOICES[choice],
        "precision=fp32",
        "epochs=2",
        "log.every=1",
        "logger=tensorboard",
        "save_every_steps=7",
    )
    assert train(*options, "name=whole").code == 0
    script = workspace / "train.py"
    script.write_text(script.read_text().replace("import sys\n", USED, 1))
    done = train(*options, "name=stopped")
    assert done.code == 0, done.out
    assert_stopped_as_whole(workspace)


def test_changed_private_names_are_noticed(fused, monkeypatch):
    def init_group(self, group, params, grads, states):
        raise AssertionError("another torch's")

    def names():
        return [fused.short_class(kind).__name__ for kind in (AdamW, Adam, SGD)]

    assert names() == ["ShortAdamW", "ShortAdam", "ShortSGD"]
    with monkeypatch.context() as patch:
        patch.setattr(Adam, "_init_group", init_group)
        patch.setattr(SGD, "_init_group", init_group)
        assert names() == ["AdamW", "Adam", "SGD"]
    with monkeypatch.context() as patch:
        patch.delattr(torch, "_fused_adamw_")
        assert names() == ["AdamW", "Adam", "ShortSGD"]
    with monkeypatch.context() as patch:
        patch.delattr(fused.hooks, "_global_optimizer_pre_hooks")
        assert names() == ["AdamW", "Adam", "ShortSGD"]


def test_public_paths_compute_the_same(fused, monkeypatch):
    def computed():
        draw = torch.Generator().manual_seed(0)
        tensors, others = ([torch.randn(shape, generator=draw) for shape in SHAPES] for _ in range(2))
        fused.for_each("div_", tensors, torch.tensor(3.0))
        fused.for_each("lerp_", tensors, others, 0.3)
        fused.for_each("copy_", others[:2], tensors[:2], True)
        rows = fused.split_rows(tensors[0], [3, 30])
        for part in rows:
            part.mul_(nn.Parameter(torch.tensor(2.0)))  # in place, which views of a split do not allow
        return [*tensors, *others, *rows]

    with_private = computed()
    monkeypatch.setattr(fused, "_is_allowed", False)
    assert all(torch.equal(a, b) for a, b in zip(with_private[1:], computed()[1:], strict=True))
    tensor = torch.zeros(2)
    assert fused.version(tensor) != fused.version(tensor)
    monkeypatch.undo()
    before = fused.version(tensor)
    assert before == fused.version(tensor)
    tensor.add_(1)
    assert before != fused.version(tensor)
