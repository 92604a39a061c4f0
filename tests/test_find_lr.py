"""The learning-rate range test suggests a rate that trains, and changes nothing else."""

import hashlib
import json
import re
from pathlib import Path

import pytest


@pytest.fixture
def find_lr(server, workspace):
    """`find_lr(*overrides)`: the result of `python find_lr.py *overrides`."""
    return lambda *overrides, **env: server.run(workspace / "find_lr.py", *overrides, **env)


def tree(folder: Path) -> dict[str, str]:
    """A hash of every file below `folder`, but for compiled Python."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def suggested(out: str) -> float:
    return float(re.search(r"Suggested lr: ([\d.e-]+)\. The loss", out)[1])


def test_its_suggestion_trains_the_default_project(find_lr, train, workspace):
    found = find_lr()
    assert found.code == 0, found.out
    assert found.last == f"python train.py lr={suggested(found.out):g}"
    done = train(found.last.split()[-1], "logger=none")
    assert done.code == 0, done.out
    (manifest,) = (workspace / "runs/default").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["result"]["last"] >= 0.97


def test_it_leaves_only_its_own_folder(find_lr, train, workspace):
    assert train("max_steps=3").code == 0
    before = tree(workspace)
    assert find_lr("find_lr.steps=60").code == 0
    after = tree(workspace)
    new = {Path(name) for name in after.keys() - before.keys()}
    assert {name: after[name] for name in before} == before
    assert {p.parts[:3] for p in new} == {("runs", "default", "find_lr")}
    assert {p.name for p in new} == {"find_lr.png", "find_lr.jsonl"}

    # No run: the run before it is still the newest one to go on with.
    again = train("max_steps=3", "resume=auto")
    assert "is finished after 3 steps" in again.out


def test_the_rate_rises_in_equal_ratios_and_a_rerun_is_equal(find_lr, workspace):
    for name in ("a", "b"):
        done = find_lr(f"name={name}", "logger=none", "find_lr.steps=40", "find_lr.start=1e-5", "find_lr.stop=1e-2")
        assert done.code == 0, done.out
    texts = [next((workspace / "runs" / name).glob("find_lr/*/find_lr.jsonl")).read_text() for name in ("a", "b")]
    assert texts[0] == texts[1]
    rows = [json.loads(line) for line in texts[0].splitlines()]
    assert [row["lr"] for row in rows] == pytest.approx([1e-5 * 1000 ** (i / 39) for i in range(40)])
    assert rows[0]["smoothed"] == pytest.approx(rows[0]["loss"])


def test_groups_keep_their_share_of_the_rate(server, workspace):
    """The test sets the base lr. The rate of a group is the base times its lr_scale, as in training."""
    (workspace / "show.py").write_text(
        "from digits.engine.launch import compose\n"
        "from digits.engine.setup import build_parts\n"
        "from digits.engine.tools.find_lr import range_test\n"
        "groups = \"optimizer.groups=[{name: head, match: 'head.*'}, {name: rest, match: '*', lr_scale: 0.1}]\"\n"
        "parts = build_parts(compose(groups, 'lr=0.5', 'find_lr.steps=20', 'find_lr.stop=1e-3'))\n"
        "rows = range_test(parts)\n"
        "print(rows[-1].lr, *(parts.scheduler.lrs(19)[name] for name in ('head', 'rest')))\n"
    )
    done = server.run(workspace / "show.py")
    assert done.code == 0, done.out
    assert [float(word) for word in done.last.split()] == pytest.approx([1e-3, 1e-3, 1e-4])


@pytest.mark.parametrize(
    ("overrides", "low", "high"),
    [
        (("model=mlp",), 3e-3, 8e-2),
        (("optimizer=sgd",), 1e-2, 0.3),
        (("accumulate=2", "clip_grad_norm=1", "ema_decay=0.9", "mix=mixup"), 1e-3, 2e-2),
    ],
    ids=["mlp", "sgd", "whole step"],
)
def test_the_suggestion_suits_model_and_optimizer(find_lr, overrides, low, high):
    done = find_lr(*overrides, "logger=none")
    assert done.code == 0, done.out
    assert low <= suggested(done.out) <= high
    assert all(override in done.last for override in overrides)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["find_lr.start=1", "find_lr.stop=0.1"], "find_lr.start=1.0"),
        (["find_lr.start=0"], "find_lr.start=0.0"),
        (["find_lr.steps=5"], "find_lr.steps=5"),
        (["find_lr.stpes=5"], "Did you mean 'find_lr.steps'?"),
        (["lrr=1"], "Did you mean 'lr'?"),
        (["resume=auto"], "resume"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_mistakes(find_lr, train, workspace, overrides, named):
    done = find_lr(*overrides)
    assert done.code == 2, done.out
    assert len(done.out.strip().splitlines()) == 1
    assert named in done.out
    assert not (workspace / "runs").exists()


def test_a_loss_that_never_falls_is_said(find_lr, workspace):
    done = find_lr("find_lr.start=1e-9", "find_lr.stop=1e-8", "find_lr.steps=20", "logger=none")
    assert done.code == 2
    assert "does not fall between lr=1.0e-09 and 1.0e-08" in done.last
    assert list((workspace / "runs/default/find_lr").glob("*/find_lr.png"))
