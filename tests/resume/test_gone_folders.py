"""A run whose folder, or whose checkpoints, are moved or deleted: it says so, and goes on where it can."""

import json

import pytest
from helpers import snippets
from helpers.runs import assert_stopped_as_whole, logged, result, the_run

RUN = ("task._target_=.doing.Doing", "model=mlp", "epochs=1", "log.every=1", "save_every_steps=10")


@pytest.fixture
def workspace(workspace):
    snippets.add(workspace, "digits/doing.py")
    return workspace


@pytest.mark.parametrize("logger", ["none", "tensorboard"])
def test_a_run_that_is_moved_goes_on_at_its_new_place(train, workspace, logger):
    run = (*RUN, f"logger={logger}", "log.curves=false")
    assert train(*run, "name=whole").code == 0
    done = train(*run, "name=stopped", AT="12", DO="move")
    assert done.code == 74, done.out
    assert "was moved or deleted while the run was training" in done.last
    assert "Traceback" not in done.out
    assert list((workspace / "runs/stopped").iterdir()) == [], "a folder is made again"
    done = train("resume=runs/moved")
    assert done.code == 0, done.out
    moved = workspace / "runs/moved"
    assert result(moved) == result(the_run(workspace, "whole"))
    assert logged(moved) == logged(the_run(workspace, "whole"))


def test_a_run_that_is_deleted_ends_with_a_sentence(train, workspace):
    done = train(*RUN, "logger=none", "name=stopped", AT="12", DO="delete", ON="*")
    assert done.code == 74, done.out
    assert "was moved or deleted while the run was training" in done.last
    assert "Traceback" not in done.out
    assert list((workspace / "runs/stopped").iterdir()) == []


def test_checkpoints_that_are_gone_are_told_once(train, workspace):
    assert train(*RUN, "logger=none", "name=whole").code == 0
    done = train(*RUN, "logger=none", "name=stopped", AT="12", DO="delete", ON="*/checkpoints")
    assert done.code == 74, done.out
    assert "No such file or directory" in done.last
    assert "intact" not in done.last
    assert json.loads((the_run(workspace, "stopped") / "manifest.json").read_text())["status"] == "save failed"
    done = train(*RUN, "logger=none", "name=stopped", "resume=auto", "max_minutes=1e-9")
    assert done.code == 75, done.out
    assert done.out.count("checkpoints is gone") == 1
    done = train(*RUN, "logger=none", "name=stopped", "resume=auto")
    assert done.code == 0, done.out
    assert "gone" not in done.out
    assert_stopped_as_whole(workspace)
