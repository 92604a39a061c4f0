"""`dry_run=true`: everything with the first step, and no run."""

from pathlib import Path

import pytest


def left(workspace: Path) -> list[str]:
    runs = workspace / "runs"
    return sorted(str(p.relative_to(runs)) for p in runs.rglob("*") if p.is_file()) if runs.exists() else []


def test_it_shows_a_run_and_leaves_none(train, workspace):
    done = train(
        "dry_run=true",
        "accumulate=2",
        "optimizer.groups=[{name: head, match: 'head.*'}, {name: rest, match: '*', lr_scale: 0.1}]",
    )
    assert done.code == 0, done.out
    for text in (
        "CNN, 288,170 parameters",
        "1,297 samples for training, 250 for validation",
        "400 of 64 samples in 2 micro-batches: 20 epochs of 20",
        "(32×1×8×8, 32): loss 2.",
        "runs/default/dry_run.png",
    ):
        assert text in done.out
    table = [line.split() for line in done.out.splitlines() if line.startswith(("head ", "rest "))]
    assert table == [["head", "1,290", "2", "0.003", "0.05"], ["rest", "286,880", "18", "0.0003", "0.05"]]
    assert left(workspace) == ["default/dry_run.png"]
    assert (workspace / "runs/default/dry_run.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_after_it_is_a_new_one_and_the_same(train, workspace):
    assert train("max_steps=3", "logger=none", "name=a").code == 0
    assert train("max_steps=3", "logger=none", "name=b", "dry_run=true", "resume=auto").code == 0
    done = train("max_steps=3", "logger=none", "name=b", "resume=auto")
    assert done.code == 0, done.out
    assert done.last.split()[-1].rstrip("…") in (next((workspace / "runs/a").glob("*/manifest.json"))).read_text()


def test_a_run_that_would_be_resumed_is_left_as_it_is(train, workspace):
    assert train("max_steps=3", "logger=none").code == 0
    before = {name: (workspace / "runs" / name).read_bytes() for name in left(workspace)}
    assert train("max_steps=6", "resume=auto", "logger=none", "dry_run=true").code == 0
    assert {name: (workspace / "runs" / name).read_bytes() for name in before} == before
    assert left(workspace) == sorted([*before, "default/dry_run.png"])


def test_multirun(train, workspace):
    done = train("-m", "dry_run=true", "scheduler=constant,step,plateau", "model=mlp")
    assert done.code == 0, done.out
    pictures = [name for name in left(workspace) if "/.sweeps/" not in name]
    assert pictures == [f"default/dry_run_{number}.png" for number in range(3)]
    assert "job  overrides" not in done.out


@pytest.mark.parametrize(
    ("overrides", "named"),
    [(["dry_run=maybe"], "dry_run"), (["dry_run=true", "monitor=val/nothing_acc"], "val/acc")],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_mistakes(train, workspace, overrides, named):
    done = train(*overrides)
    assert done.code == 2, done.out
    assert len(done.out.strip().splitlines()) == 1
    assert named in done.out
    assert not left(workspace)


@pytest.mark.parametrize("warmup", ["true", "false"])
def test_averaged_weights_resume_in_the_trial(train, workspace, warmup):
    done = train("dry_run=true", "ema_decay=0.9", f"ema_warmup={warmup}")
    assert done.code == 0, done.out
    assert "The schedule:" in done.out


def test_its_second_copy_says_nothing_again(train, workspace):
    assert train("model=mlp", "model.hidden=[8]", "max_steps=1", "logger=none", "name=first").code == 0
    (weights,) = (workspace / "runs/first").glob("*/checkpoints/best.pt")
    done = train("model=mlp", "model.hidden=[8]", f"init_from={weights}", "dry_run=true")
    assert done.code == 0, done.out
    assert done.out.count("tensors of the model") == 1
