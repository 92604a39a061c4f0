"""A data set with `set_epoch` knows the epoch of each of its samples, in any process and after any resume."""

import pytest
from helpers import snippets
from helpers.runs import assert_stopped_as_whole, rows, the_run

OPTIONS = ("data=.epochs.Epochs", "task=.epochs.Telling", "model=mlp", "logger=none", "batch_size=16",
           "epochs=4", "log.every=1", "val_every_steps=3", "mix=none", "drop_last=false")  # fmt: skip


@pytest.fixture(params=["samples", "batches", "parts"])
def options(request, workspace) -> tuple[str, ...]:
    snippets.add(workspace, "digits/epochs.py")
    return (*OPTIONS, f"data.kind={request.param}")


def test_each_sample_is_of_its_epoch(train, workspace, options):
    for workers in (0, 1, 3):
        done = train(*options, f"workers={workers}", "name=whole" if workers == 0 else f"name=w{workers}")
        assert done.code == 0, done.out
    found = rows(the_run(workspace, "whole"))
    assert {row["train/seen"] == row["epoch"] for row in found if "train/seen" in row} == {True}
    assert {row["train/spread"] for row in found if "train/seen" in row} == {0.0}
    assert {row["val/seen"] for row in found if "val/seen" in row} == {0.0}
    for workers in (1, 3):
        other = rows(the_run(workspace, f"w{workers}"))
        assert [row.get("train/loss") for row in other] == [row.get("train/loss") for row in found]
        assert [row.get("val/loss") for row in other] == [row.get("val/loss") for row in found]


def test_a_resume_in_any_epoch(train, workspace, options):
    assert train(*options, "name=whole", "workers=0").code == 0
    for workers in (2, 0, 1):
        stopped = train(*options, "name=stopped", "resume=auto", f"workers={workers}", "max_minutes=0.00001")
        assert stopped.code == 75, stopped.out
    assert train(*options, "name=stopped", "resume=auto", "workers=2").code == 0
    assert_stopped_as_whole(workspace)
