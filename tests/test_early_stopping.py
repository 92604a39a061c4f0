"""Early stopping says that it stopped, why, and how to go on. A larger patience goes on as if it had always been so."""

import pytest
from helpers import snippets
from helpers.runs import logged, result, the_run

SCORES = [3, 5, 4, 4, 4, 6, 5, 5, 5, 5, 5, 5]
TASK = ("task._target_=.scripted.Scripted", f"+task.scores={SCORES}".replace(" ", ""))
BASE = (
    *TASK,
    "monitor=val/score",
    "monitor_mode=max",
    "model=mlp",
    "limit_train_batches=2",
    "logger=none",
    "log.every=2",
)


@pytest.fixture
def workspace(workspace):
    snippets.add(workspace, "digits/stopping.py", "digits/scripted.py")
    return workspace


@pytest.mark.parametrize(("patience", "stops_after"), [("0", 3), ("1", 4), ("2", 5), ("3", 10), ("null", None)])
def test_it_stops_when_more_validations_than_its_patience_do_not_improve(train, workspace, patience, stops_after):
    done = train(*BASE, "epochs=12", f"early_stopping_patience={patience}")
    assert done.code == 0, done.out
    folder = the_run(workspace)
    log = (folder / "train.log").read_text()
    if stops_after is None:
        assert result(folder)["stopped_early"] is None
        assert "Early stopping" not in done.out + log
        return
    assert result(folder)["epochs"] == stops_after
    reason = f"{int(patience) + 1} validations in a row did not improve val/score (early_stopping_patience={patience})"
    assert result(folder)["stopped_early"] == reason
    sentence = f"Early stopping: {reason}. Go on with: python train.py resume=runs/default/{folder.name} early_stop"
    assert sentence in done.out
    assert sentence in log


def test_a_run_that_comes_to_its_end_did_not_stop_early(train, workspace):
    done = train(*BASE, "epochs=4", "early_stopping_patience=1")
    assert done.code == 0
    assert "Early stopping" not in done.out
    assert result(the_run(workspace))["stopped_early"] is None


@pytest.mark.parametrize("scheduler", ["cosine", "one_cycle"])
def test_a_larger_patience_goes_on(train, workspace, scheduler):
    options = (*BASE, "epochs=12", f"scheduler={scheduler}")
    for name, patience in (("three", 3), ("whole", "null")):
        assert train(*options, f"name={name}", f"early_stopping_patience={patience}").code == 0
    assert train(*options, "early_stopping_patience=0").code == 0
    folder = the_run(workspace)
    resume = f"resume=runs/default/{folder.name}"
    again = train(resume)
    assert again.code == 0
    assert "is finished after 6 steps. It stopped early: 1 validations in a row did not improve val/sc" in again.last
    assert again.last.endswith("(early_stopping_patience=0). Raise the patience to go on, or set it to null.")
    done = train(resume, "early_stopping_patience=3")
    assert done.code == 0, done.out
    assert "the schedule becomes" not in done.out
    assert result(folder) == result(the_run(workspace, "three"))
    assert logged(folder) == logged(the_run(workspace, "three"))
    fewer = train(resume, "early_stopping_patience=2")
    assert fewer.code == 2
    assert "early_stopping_patience=2 is below early_stopping_patience=3" in fewer.last
    assert train(resume, "early_stopping_patience=null").code == 0
    assert result(folder) == result(the_run(workspace, "whole"))
    assert logged(folder) == logged(the_run(workspace, "whole"))
    assert "is below early_stopping_patience=null" in train(resume, "early_stopping_patience=9").last


def test_resume_auto_finds_the_run_with_a_larger_patience(train, workspace):
    assert train(*BASE, "epochs=12", "early_stopping_patience=0").code == 0
    assert train(*BASE, "epochs=12", "early_stopping_patience=1", "resume=auto").code == 0
    assert result(the_run(workspace))["epochs"] == 4
