"""Workers, validation, logging, saving and earlier runs change nothing of a result."""

from pathlib import Path

import pytest
from helpers import snippets
from helpers.runs import result, rows, the_run
from helpers.watching import KEPT, MODEL, SHORT, STOPS, TASK, assert_equal, batches, checkpoints, difference


@pytest.fixture
def mine(workspace, pictures) -> tuple[str, ...]:
    """The overrides of a run on this data set."""
    snippets.add(workspace, "digits/data/mine.py")
    (workspace / "configs/data/mine.yaml").write_text("_target_: .data.mine.Mine\nroot: ???\ncollate: noisy\n")
    return (*TASK, *SHORT, *MODEL, *KEPT, "data=mine", f"data.root='{pictures}'")


def test_samples_come_in_the_same_order_with_the_same_pixels(run_watched, workspace, mine):
    run_watched("whole", *mine, "workers=0")
    run_watched("stopped", *mine, "workers=4", at=1, by="SIGKILL", code=137)
    for workers, at, by in ((1, 4, "SIGTERM"), (2, 9, "SIGKILL"), (4, 12, "SIGUSR1"), (0, 13, "SIGKILL")):
        run_watched("stopped", *mine, "resume=auto", f"workers={workers}", at=at, by=by, code=STOPS[by])
    run_watched("stopped", *mine, "resume=auto", "workers=1")
    assert_equal(the_run(workspace, "whole"), the_run(workspace, "stopped"))
    seen = batches(workspace, "whole")
    assert batches(workspace, "stopped") == seen
    assert len({digest for digests in seen.values() for digest in digests}) == len(seen) == 18


def shared_values(folder: Path) -> dict[tuple[int, str], float]:
    """The logged values that do not depend on when a run logs and validates."""
    return {
        (row["step"], key): value
        for row in rows(folder)
        for key, value in row.items()
        if key.startswith(("train_epoch/", "val/", "lr/")) and key != "val/noise"
    }


@pytest.mark.parametrize(
    "others",
    [
        ("workers=1",),
        ("workers=2",),
        ("workers=4",),
        ("val_every_epochs=0",),
        ("val_every_steps=1",),
        ("log.every=1",),
        ("log.every=1000", "log.level=debug"),
        ("save_every_steps=1",),
        ("save_every_steps=null", "save_every_epochs=0", "keep_last=1"),
        ("val_at_start=true",),
        ("logger=tensorboard",),
        ("+logger.noisy._target_=.noisy.Noisy", "log.every=1"),
        ("task._target_=.noisy.NoisyTask", "val_every_steps=2"),
        ("task._target_=.noisy.NoisyTask", "+logger.noisy._target_=.noisy.Noisy", "log.every=2", "val_every_steps=3"),
    ],
    ids=" ".join,
)
def test_what_does_not_matter_changes_nothing(run_watched, workspace, mine, others):
    snippets.add(workspace, "digits/noisy.py")
    mine = (*mine, "ema_decay=0.8", "drop_last=false", "accumulate=2")
    run_watched("whole", *mine, "workers=0")
    run_watched("other", *mine, "workers=0", *others)
    one, two = the_run(workspace, "whole"), the_run(workspace, "other")
    assert_unchanged(workspace, one, two)


def assert_unchanged(workspace: Path, one: Path, two: Path) -> None:
    """Both runs have equal batches, weights, optimizer states, and equal values where both logged one."""
    assert batches(workspace, one.parent.name) == batches(workspace, two.parent.name)
    for key in ("weights_sha256", "ema_sha256", "steps", "last"):
        assert result(one)[key] == result(two)[key], key
    newest = [next(iter(checkpoints(folder).values())) for folder in (one, two)]
    for key in ("model", "ema", "loss", "optimizer", "scheduler", "scaler"):
        assert difference(newest[0][key], newest[1][key], key) is None
    a, b = shared_values(one), shared_values(two)
    both = a.keys() & b.keys()
    assert len(both) > 10
    assert {key: a[key] for key in both} == {key: b[key] for key in both}


def test_a_collate_function_that_draws_disturbs_nothing_else(run_watched, workspace, mine):
    mine = (*mine, "ema_decay=0.8")
    run_watched("plain", *mine, "data.collate=null")
    for workers in (0, 2):
        run_watched(f"idle{workers}", *mine, "data.collate=idle", f"workers={workers}")
        assert_unchanged(workspace, the_run(workspace, "plain"), the_run(workspace, f"idle{workers}"))


def test_earlier_runs_in_the_process_change_nothing(run_watched, server, workspace, mine):
    mine = (*mine, "ema_decay=0.8")
    run_watched("whole", *mine)
    snippets.add(workspace, "after_others.py")
    done = server.run(workspace / "after_others.py", *mine, "name=last")
    assert done.code == 0, done.out
    assert {p.name for p in (workspace / "runs").iterdir()} == {"whole", "other", "another", "last"}
    assert_equal(the_run(workspace, "whole"), the_run(workspace, "last"))
    assert batches(workspace, "last") == batches(workspace, "whole")
