"""Nothing that is infinite or NaN is ever saved, and the step that it came from is named."""

import json
import re

import pytest
import torch
from helpers import snippets
from helpers.runs import logged, result, rows, the_run

BASE = (
    "data=pairs", "model=pairs", "task._target_=.distances.Distance", "monitor=val/loss", "monitor_mode=min",
    "batch_size=8", "scheduler=constant", "logger=none",
)  # fmt: skip
EACH = ("epochs=3", "save_every_steps=1", "val_every_steps=1", "keep_last=1")
SAME = "+data.same=35"  # in step 5 of each epoch
GROUPS = "optimizer.groups=[{name: first, match: 'first.*'}, {name: second, match: '*'}]"


@pytest.fixture
def pairs(workspace):
    snippets.add(workspace, "digits/distances.py")
    for group, kind in (("data", "Pairs"), ("model", "Embed")):
        (workspace / f"configs/{group}/pairs.yaml").write_text(f"_target_: .distances.{kind}\n")
    return BASE


def not_finite(value: object, place: str = "") -> list[str]:
    """The places of a checkpoint with an infinite or NaN tensor."""
    if isinstance(value, torch.Tensor):
        return [] if value.isfinite().all() else [place]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return [found for key, one in items for found in not_finite(one, f"{place}/{key}")]


def saved(folder) -> dict[str, int]:
    """The step of each checkpoint. All that they hold is finite, the mask aside."""
    found = {}
    for path in sorted((folder / "checkpoints").iterdir()):
        state = torch.load(path, weights_only=True)
        assert [place for place in not_finite(state) if not place.endswith("/mask")] == [], path.name
        found[path.name] = state["step"]
    return found


VARIANTS = {
    "plain": (),
    "each is logged": ("log.every=1",),
    "few are logged": ("log.every=50", "val_every_steps=7", "save_every_steps=4"),
    "by norm": ("clip_grad_norm=1",),
    "by value": ("clip_grad_value=0.01",),
    "accumulated": ("accumulate=2", "ema_decay=0.9"),
    "mean": ("+task.mean=true", "accumulate=4"),
    "sgd": ("optimizer=sgd", "ema_decay=0.9", "log.grad_norm=true"),
    "in the last step": ("max_steps=5", "log.every=50", "val_every_steps=null", "save_every_steps=null"),
    "in turn": ("task._target_=.distances.InTurn", GROUPS),
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_a_gradient_that_is_not_finite(train, workspace, pairs, options):
    done = train(*pairs, *EACH, SAME, *options)
    assert done.code == 76, done.out
    assert "The gradient is not finite at step 5 (samples 32, 33, 34, 35, 36, 37, 38, 39 of the" in done.last
    folder = the_run(workspace)
    assert json.loads((folder / "manifest.json").read_text())["status"] == "not finite"
    last = {"few are logged": {"step-00000004.pt": 4}, "in the last step": {}}
    names = next((v for k, v in last.items() if VARIANTS[k] == options), {"best.pt": 4, "step-00000004.pt": 4})
    assert saved(folder) == names
    again = train(*pairs, *EACH, SAME, *options, "resume=auto")
    assert (again.code, again.last) == (76, done.last), again.out
    assert saved(folder) == names


def test_in_two_processes(train_together, workspace, pairs):
    done = train_together(*pairs, *EACH, SAME)
    assert done.code == 76, done.out
    assert "The gradient is not finite at step 5 (samples 32, " in done.out
    assert saved(the_run(workspace)) == {"best.pt": 4, "step-00000004.pt": 4}


def test_sparse_gradients(train, workspace, pairs):
    options = ("+model.sparse=true", "optimizer=sgd", "optimizer.fused=null", "optimizer.weight_decay=0")
    for more in ((), ("log.grad_norm=true",)):
        done = train(*pairs, *EACH, *options, *more, f"name=fine{len(more)}")
        assert done.code == 0, done.out
    assert result(the_run(workspace, "fine0")) == result(the_run(workspace, "fine1"))
    done = train(*pairs, *EACH, SAME, *options)
    assert done.code == 76, done.out
    assert "The gradient is not finite at step 5" in done.last


def test_a_gradient_that_no_step_uses(train, workspace, pairs):
    """A group that is not trained now may have any gradient."""
    done = train(*pairs, *EACH, GROUPS, "task._target_=.distances.FirstIsBroken")
    assert done.code == 0, done.out
    assert saved(the_run(workspace)) == {"best.pt": 24, "step-00000024.pt": 24}


def test_before_a_run(train, server, workspace, pairs):
    """The dry run and the test of learning rates look at the first gradient, too."""
    done = train(*pairs, "+data.same=3", "dry_run=true")
    assert done.code == 0, done.out
    assert "; the gradient is not finite" in done.out
    done = server.run(workspace / "find_lr.py", *pairs, "batch_size=64", "+data.same=3")
    assert done.code == 2, done.out
    assert done.last == "The first loss or gradient is not finite. Look at the data."


def test_a_step_that_the_scaler_leaves_out(looped):
    """As in fp16, with a scale at which gradients overflow at first."""
    loop = looped("model=mlp", "logger=none", "max_steps=8", "save_every_steps=1")
    loop.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    step = loop.parts.task.training_step

    def steep(model, batch, ctx):
        values = step(model, batch, ctx)
        return {**values, "loss": 1000 * values["loss"]}

    loop.parts.task.training_step = steep
    loop.fit()
    assert loop.step == 8
    assert loop.scaler.get_scale() <= 2.0**126, "no step was left out"
    assert loop.parts.optimizer.state, "each step was left out"


STATES = {
    # A finite gradient whose square overflows: Adam's second moment becomes infinite, the weights stay.
    "a moment": (("+task.scale=1e25",), r"optimizer/first\.weight/exp_avg_sq is not finite after step 1"),
    "a weight": (("optimizer=sgd", "lr=1e38", "+task.scale=1e9"), r"model/\w+\.\w+ is not finite after step 1"),
    "a buffer": (("+model.growth=1e10",), r"model/grows is not finite after step 2, .* is step-00000001.pt"),
}


@pytest.mark.parametrize("where", STATES)
def test_a_state_that_is_not_finite_is_not_saved(train, workspace, pairs, where):
    options, message = STATES[where]
    steps = 2 if where == "a buffer" else 1
    done = train(*pairs, "save_every_steps=1", "keep_last=1", f"max_steps={steps}", *options)
    assert done.code == 76, done.out
    assert re.search(message, done.last), done.last
    folder = the_run(workspace)
    assert saved(folder) == ({} if steps == 1 else {"step-00000001.pt": 1})
    assert json.loads((folder / "manifest.json").read_text())["status"] == "not finite"


def test_a_mask_that_was_infinite_from_the_start(train, workspace, pairs):
    assert train(*pairs, *EACH, "ema_decay=0.9", "max_steps=3").code == 0
    assert train(*pairs, "resume=auto", "ema_decay=0.9", "max_steps=9").code == 0
    state = torch.load(the_run(workspace) / "checkpoints/step-00000009.pt", weights_only=True)
    assert sorted(not_finite(state)) == ["/ema/mask", "/model/mask"]


def test_grad_norm(train, workspace, pairs):
    """It is logged without clipping, and changes nothing."""
    options = (*pairs, "max_steps=10", "log.every=1")
    for name, more in {"plain": (), "logged": ("log.grad_norm=true",), "clipped": ("clip_grad_norm=1e9",)}.items():
        done = train(*options, *more, f"name={name}")
        assert done.code == 0, done.out
    plain, norms, clipped = (logged(the_run(workspace, name)) for name in ("plain", "logged", "clipped"))
    assert norms == clipped
    assert norms != plain
    assert all(row["train/grad_norm"] > 0 for row in norms if "train/loss" in row)
    assert [{key: value for key, value in row.items() if not key.endswith("/grad_norm")} for row in norms] == plain
    assert result(the_run(workspace, "logged")) == result(the_run(workspace, "plain"))


def test_the_norm_is_that_of_the_gradient(looped):
    loop = looped("model=mlp", "log.grad_norm=true", "max_steps=1", "accumulate=4")
    norms = []
    loop.parts.optimizer.register_step_pre_hook(
        lambda *_: norms.append(torch.cat([q.grad.flatten() for q in loop.parts.parameters.values()]).norm())
    )
    loop.fit()
    (row,) = [row for row in rows(loop.run.folder) if "train/loss" in row]
    assert row["train/grad_norm"] == pytest.approx(norms[0].item())


def test_weights_to_start_from(train, workspace, pairs, tmp_path):
    assert train(*pairs, "max_steps=1", "name=first").code == 0
    state = torch.load(the_run(workspace, "first") / "checkpoints/best.pt", weights_only=True)["model"]
    torch.save(state, tmp_path / "good.pt")
    assert train(*pairs, "max_steps=1", "name=good", f"init_from={tmp_path / 'good.pt'}").code == 0
    state["second.bias"][1] = torch.nan
    torch.save(state, tmp_path / "bad.pt")
    done = train(*pairs, "max_steps=1", "name=bad", f"init_from={tmp_path / 'bad.pt'}")
    assert done.code == 2, done.out
    assert f"second.bias in {tmp_path / 'bad.pt'} is infinite or NaN" in done.last
    assert not (workspace / "runs/bad").exists()


KINDS = {
    "float": (torch.zeros(3), torch.zeros(2, 2), torch.zeros(())),
    "others": (
        torch.zeros(3),
        torch.zeros(0),
        torch.zeros(3, dtype=torch.float64),
        torch.zeros(2, dtype=torch.bfloat16),
    ),
    "complex": (torch.zeros(3, dtype=torch.complex64),),
    "none": (),
}


@pytest.mark.parametrize("is_public", [False, True], ids=["private", "public"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_is_found(engine, monkeypatch, kind, is_public):
    internals, found, calls = engine("machine.torch_internals"), torch.zeros(()), torch.zeros(())
    monkeypatch.setattr(internals, "_is_allowed", not is_public)
    internals.look_for_not_finite([tensor.clone() for tensor in KINDS[kind]], found, calls)
    assert (found.item(), calls.item()) == (0, 0)
    for place, tensor in enumerate(KINDS[kind]):
        for bad in (torch.nan, torch.inf, -torch.inf):
            tensors = [tensor.clone() for tensor in KINDS[kind]]
            if tensor.numel():
                tensors[place].view(-1)[-1] = bad
            found, calls, is_bad = torch.zeros(()), torch.zeros(()), tensor.numel() > 0
            internals.look_for_not_finite(tensors, found, calls)
            assert (found.item(), calls.item()) == (is_bad, is_bad)
            internals.look_for_not_finite([torch.zeros_like(one) for one in tensors], found, calls)
            assert (found.item(), calls.item()) == (is_bad, 2 * is_bad), "once found, it stays"


def test_looking_at_a_gradient_changes_no_bit(engine):
    bits = torch.randint(-(2**31), 2**31, (100_000,), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    values = bits.view(torch.float32)
    values = values[values.isfinite()]
    before = values.clone()
    engine("machine.torch_internals").look_for_not_finite([values], torch.zeros(()), torch.zeros(()))
    assert torch.equal(values.view(torch.int32), before.view(torch.int32))
