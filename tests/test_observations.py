"""What a schedule and early stopping take from validations, also in a run that was stopped or made longer."""

import math

import pytest
from helpers import snippets
from helpers.runs import logged, result, rows, the_run

TASK = (
    "task._target_=.scripted.Scripted",
    "monitor=val/score",
    "monitor_mode=max",
    "model=mlp",
    "limit_train_batches=2",
)
BASE = (*TASK, "logger=none", "log.every=2", "scheduler=constant", "save_every_steps=1")
PLATEAU = ("scheduler=plateau", "scheduler.patience=0", "scheduler.factor=0.5")


@pytest.fixture
def scripted(workspace, train):
    """`scripted(name, scores, *overrides)`: train with these scores of the epochs."""
    snippets.add(workspace, "digits/stopping.py", "digits/scripted.py")

    def scripted(name, scores, *overrides, code=0, **env):
        told = ",".join("null" if math.isnan(score) else str(score) for score in scores)
        done = train(*BASE, *overrides, f"+task.scores=[{told}]", f"name={name}", **env)
        assert done.code == code, done.out
        return done

    return scripted


def lrs(folder):
    return {row["step"]: row["lr/all"] for row in rows(folder) if "lr/all" in row}


# ---------------------------------------------------------------- a run that is made longer

FLAT = [1, 2, 5, 4, 4, 4, 3, 3, 3, 3, 3, 3]
FLUKE = [1, 2, 3, 9, 5, 4, 4, 4, 6, 5, 5, 7]


@pytest.mark.parametrize("scores", [FLAT, FLUKE], ids=["flat", "fluke"])
@pytest.mark.parametrize("reader", [("early_stopping_patience=1",), PLATEAU], ids=["early", "plateau"])
def test_a_longer_run_observes_what_it_would_have_observed(scripted, workspace, scores, reader):
    """Validations at epochs 3, 6, 9 and 12. The shorter run has one more, at its end."""
    options = (*reader, "val_every_epochs=3")
    scripted("whole", scores, *options, "epochs=12")
    scripted("longer", scores, *options, "epochs=4")
    scripted("longer", scores, *options, "epochs=12", "resume=auto")
    whole, longer = the_run(workspace, "whole"), the_run(workspace, "longer")
    ours, theirs = result(whole), result(longer)
    assert theirs == {**ours, "best": max(scores[2], scores[3]) if scores is FLUKE else ours["best"]}
    extra = [row for row in logged(longer) if row["epoch"] == 4 and "val/score" in row]
    assert [row["val/score"] for row in extra] == [scores[3]]
    assert [row for row in logged(longer) if row not in extra] == logged(whole)
    assert lrs(longer) == lrs(whole)


def test_a_longer_run_makes_no_validation_for_its_old_end(scripted, workspace):
    """The shorter run was stopped within its last validation."""
    options = (*PLATEAU, "val_every_epochs=3")
    scripted("whole", FLAT, *options, "epochs=12")
    scripted("longer", FLAT, *options, "epochs=4", code=75, AT="8", PHASE="val", WITH="SIGTERM")
    scripted("longer", FLAT, *options, "epochs=12", "resume=auto")
    whole, longer = the_run(workspace, "whole"), the_run(workspace, "longer")
    assert result(longer) == result(whole)
    assert logged(longer) == logged(whole)


# ---------------------------------------------------------------- values that are not finite

NAN = math.nan


def test_a_value_that_is_not_finite_is_no_observation(scripted, workspace):
    """Patience 1: without the NaNs, epochs 5 and 7 are the second and third that are not better."""
    scores = [NAN, 2, NAN, 1, NAN, NAN, 1, 3]
    scripted("early", scores, "early_stopping_patience=1", "epochs=8")
    folder = the_run(workspace, "early")
    assert (result(folder)["epochs"], result(folder)["best"], result(folder)["last"]) == (7, 2, 1)
    scripted("plateau", scores, *PLATEAU, "epochs=8", "lr=0.01")
    used = lrs(the_run(workspace, "plateau"))
    expected = [0.01, 0.01, 0.01, 0.01, 0.005, 0.005, 0.005, 0.0025]  # it falls after epochs 4 and 7
    assert [used[2 * epoch] for epoch in range(1, 9)] == pytest.approx(expected)


def test_a_last_value_that_is_not_finite_is_none(scripted, workspace, engine):
    scripted("nan", [3, NAN], "epochs=2")
    folder = the_run(workspace, "nan")
    assert (result(folder)["best"], result(folder)["last"]) == (3, None)
    summary = engine("tools.compare").Summary(folder)  # what `compare` shows, and takes means of
    assert (summary.best, summary.last) == (3, None)


def test_a_search_takes_no_value_that_is_not_finite(scripted, workspace):
    options = ("sweep=optuna", "hydra.sweeper.n_trials=4", "epochs=choice(1,2)", "log.level=error")
    for resume in ("null", "auto"):  # finished runs give their values again
        done = scripted("search", [3, NAN], *options, f"resume={resume}")
        assert "epochs=2" in done.out
    for found in (workspace / "runs/search/.sweeps").glob("*/optimization_results.yaml"):
        assert "best_value: 3.0" in found.read_text()
    assert len(list((workspace / "runs/search").glob("*/manifest.json"))) == 4


# ---------------------------------------------------------------- what a resume may change


@pytest.mark.parametrize("key", ["val_every_epochs=2", "val_every_steps=3"])
@pytest.mark.parametrize(
    ("reader", "named"), [(("early_stopping_patience=5",), "early stopping"), (PLATEAU, "the schedule")]
)
def test_validations_that_are_read_stay_where_they_are(scripted, train, workspace, reader, named, key):
    scripted("read", FLAT, *reader, "epochs=6", code=75, AT="5", WITH="SIGTERM")
    folder = the_run(workspace, "read")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = train(f"resume={folder}", key)
    assert done.code == 2, done.out
    assert f"{key.split('=')[0]} cannot change: {named} reads validation. Leave it as it was." in done.last
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before[path]} <= {folder / "train.log"}
    assert train(f"resume={folder}", "val_every_epochs=1").code == 0


def test_a_task_that_acts_after_validations(scripted, train, workspace):
    path = workspace / "digits/scripted.py"
    path.write_text(
        path.read_text() + "\n    def after_validation(self, model, values, ctx):\n        self.seen = values\n"
    )
    scripted("task", FLAT, "epochs=6", code=75, AT="5", WITH="SIGTERM")
    done = train(f"resume={the_run(workspace, 'task')}", "val_every_epochs=2")
    assert (done.code, "the task reads validation. Leave it as it was." in done.last) == (2, True)


def test_a_schedule_of_ones_own_that_reads_validations(scripted, train, workspace):
    (workspace / "digits/schedules.py").write_text(
        "from dataclasses import dataclass\nfrom .engine.schedule import Constant\n\n\n@dataclass(kw_only=True)\n"
        "class Reading(Constant):\n    def observe(self, value):\n        print('observed', value)\n\n"
        "    def state_dict(self):\n        return {}\n\n    def load_state_dict(self, state):\n        pass\n"
    )
    options = ("scheduler._target_=.schedules.Reading", "epochs=3")
    done = scripted("own", [1, NAN, 2], *options, code=75, AT="5", WITH="SIGTERM")
    assert [line for line in done.out.splitlines() if "observed" in line] == ["observed 1.0"]
    done = train(f"resume={the_run(workspace, 'own')}", "val_every_steps=1")
    assert (done.code, "the schedule reads validation" in done.last) == (2, True)
