"""`Task.after_step` and `Task.after_validation`: when they are called, and that runs with them stay exact."""

import itertools
import json
import re

import pytest
import torch
from helpers import snippets
from helpers.runs import assert_stopped_as_whole, result, rows, the_run
from helpers.template import ROOT

OPTIONS = (
    "task._target_=.hooked.Hooked", "logger=none", "model=mlp", "model.hidden=[8]", "epochs=3", "limit_train_batches=5",
    "limit_val_batches=2", "val_every_steps=3", "save_every_steps=4", "ema_decay=0.9",
)  # fmt: skip
VALIDATED = [3, 6, 9, 12, 15]


@pytest.fixture
def hooked(train, workspace, tmp_path):
    """`hooked(name, …)` trains with the hooks, and returns the exit code and the lines that they noted."""
    snippets.add(workspace, "digits/hooked.py", "digits/stopping.py")

    def hooked(name, *overrides, run=train, rank=0, **env):
        done = run(*OPTIONS, f"name={name}", *overrides, CALLS=str(tmp_path / name), **env)
        return done, (tmp_path / f"{name}-{rank}").read_text().splitlines()

    return hooked


def test_when_they_are_called(hooked, workspace):
    done, lines = hooked("whole")
    assert done.code == 0, done.out
    calls = [line.split()[:4] for line in lines]
    wanted = []
    for step in range(1, 16):
        wanted.append(["step", str(step), str(-(-step // 5)), "True"])
        if step in VALIDATED:
            wanted.append(["validation", str(step), str(-(-step // 5)), "False"])
    assert calls == wanted
    ends = [int(line.split()[1]) for line in lines if line.startswith("step") and "'ends_epoch': True" in line]
    assert ends == [5, 10, 15]
    losses = [float(re.search(r"'loss': ([\d.]+)", line)[1]) for line in lines if line.startswith("validation")]
    assert losses == [row["val/loss"] for row in rows(the_run(workspace, "whole")) if "val/loss" in row]
    drawn = [line.split()[4] for line in lines]
    assert len(set(drawn)) == len(drawn), "each call has its own random draws"


STOPS = [
    ("train", 7, "SIGTERM"),
    ("val", 6, "SIGTERM"),
    ("train", 9, "SIGKILL"),
    ("val", 9, "SIGKILL"),
    ("val", 15, "SIGTERM"),
]


@pytest.mark.parametrize(("phase", "at", "by"), STOPS, ids=lambda x: str(x))
def test_a_stopped_run_ends_as_a_whole_one(hooked, workspace, phase, at, by):
    done, whole = hooked("whole")
    assert done.code == 0, done.out
    done, _ = hooked("stopped", AT=str(at), PHASE=phase, WITH=by)
    assert done.code == {"SIGTERM": 75, "SIGKILL": 137}[by], done.out
    done, lines = hooked("stopped", "resume=auto")
    assert done.code == 0, done.out
    assert_stopped_as_whole(workspace)
    if by == "SIGTERM":
        assert lines == whole, "nothing is called twice or left out"
    assert [line for n, line in enumerate(lines) if line not in lines[:n]] == whole


def test_weights_are_averaged_after_the_hook(hooked, workspace):
    done, _ = hooked("whole", "save_every_steps=1", "keep_last=20")
    assert done.code == 0, done.out
    states = [
        torch.load(p, weights_only=True) for p in sorted((the_run(workspace, "whole") / "checkpoints").glob("step*"))
    ]
    assert len(states) == 15
    for before, after in itertools.pairwise(states):
        for name, weight in after["model"].items():
            assert torch.equal(before["ema"][name].lerp(weight, 1 - 0.9), after["ema"][name]), name


def test_in_two_processes(hooked, train_together, tmp_path):
    done, lines = hooked("two", run=train_together)
    assert done.code == 0, done.out
    others = (tmp_path / "two-1").read_text().splitlines()
    assert others == lines, "each process has the same draws and the same values"


def test_a_task_without_them_costs_nothing(looped):
    hooks = looped("model=mlp").hooks
    assert not hooks.has_after_step
    assert not hooks.has_after_validation


# ---------------------------------------------------------------- the examples in docs/interface.md


@pytest.fixture
def examples(workspace):
    """Write the files of the page into the project."""
    page = (ROOT / "docs/interface.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"```python\n# my_project/(\w+\.py)(.*?)```", page, re.DOTALL))
    assert blocks.keys() == {"teaching.py", "noting.py"}
    for name, text in blocks.items():
        (workspace / "digits" / name).write_text(f"#{text}")
    (workspace / "configs/model/taught.yaml").write_text("_target_: .teaching.Taught\n")


SHORT = ("logger=none", "epochs=4", "limit_train_batches=5")


def test_the_teacher_follows(train, workspace, examples):
    options = ("model=taught", "task._target_=.teaching.Teaching", *SHORT)
    done = train(*options, "save_every_steps=1", "keep_last=20")
    assert done.code == 0, done.out
    states = [
        torch.load(p, weights_only=True)["model"] for p in sorted((the_run(workspace) / "checkpoints").glob("step*"))
    ]
    assert len(states) == 20
    for before, after in itertools.pairwise(states):
        for name in (key for key in after if key.startswith("teacher.")):
            assert torch.equal(before[name].lerp(after[name.replace("teacher", "student")], 0.01), after[name])
            assert not torch.equal(before[name], after[name])


def test_decay_and_notes(train, workspace, examples):
    options = ("model=mlp", "task._target_=.noting.Noting", *SHORT)
    assert train(*options, "name=whole").code == 0
    assert train(*options, "name=plain", "task._target_=.task.Classification").code == 0
    whole, plain = the_run(workspace, "whole"), the_run(workspace, "plain")
    assert result(whole)["weights_sha256"] != result(plain)["weights_sha256"]
    notes = [json.loads(path.read_text()) for path in sorted(whole.glob("note-*.json"), key=lambda p: int(p.stem[5:]))]
    assert [(n["step"], n["loss"]) for n in notes] == [
        (r["step"], r["val/loss"]) for r in rows(whole) if "val/loss" in r
    ]
    assert all(0 < note["largest"] < 10 for note in notes)
