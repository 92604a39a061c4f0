"""Parts of an epoch: `limit_*` and `val_every_epochs` as fractions, and checkpoints that are all kept."""

import math
from fractions import Fraction

import pytest
from helpers.runs import assert_stopped_as_whole, rows, the_run

SHORT = ("logger=none", "model=mlp", "log.level=error", "workers=0")


def validations(workspace, name: str = "default") -> list[int]:
    return [row["step"] for row in rows(the_run(workspace, name)) if "val/loss" in row]


@pytest.mark.parametrize(
    ("every", "limit"), [("0.25", 20), ("0.25", 10), ("0.1", 7), ("0.3", 20), ("1.5", 4), ("0.001", 4), ("2", 3)]
)
def test_validations_within_an_epoch(train, workspace, every, limit):
    done = train(*SHORT, f"val_every_epochs={every}", f"limit_train_batches={limit}", "epochs=3", "limit_val_batches=1")
    assert done.code == 0, done.out
    due = Fraction(every) * limit  # in steps: the first step that is not before each multiple
    expected = {math.ceil(due * k) for k in range(1, int(3 * limit / due) + 1)} | {3 * limit}
    assert validations(workspace) == sorted(expected)
    if every == "0.25":
        assert len(expected) == 12
        assert expected >= {limit, 2 * limit, 3 * limit}  # the end of each epoch, too


@pytest.mark.parametrize(
    ("limit", "batches"),
    [("null", 20), ("1", 1), ("1.0", 20), ("0.25", 5), ("0.5", 10), ("0.29", 6), ("0.001", 1), ("5", 5), ("500", 20)],
)
def test_a_limit_is_a_count_or_a_share(engine, limit, batches):
    config = engine("launch").compose(f"limit_train_batches={limit}")
    plan = engine("batches.plan").Plan(20 * 8, 8, limit=config.limit_train_batches)
    assert plan.steps == batches
    assert engine("batches.plan").Plan(157, 8, drop_last=False, limit=config.limit_train_batches).steps == batches


def test_a_share_of_the_validation(train, workspace):
    assert train(*SHORT, "limit_val_batches=0.5", "batch_size=10", "max_steps=1").code == 0
    (row,) = [row for row in rows(the_run(workspace)) if "val/loss" in row]
    assert (
        train(*SHORT, "name=count", "limit_val_batches=13", "batch_size=10", "max_steps=1").code == 0
    )  # of 25 batches
    (other,) = [row for row in rows(the_run(workspace, "count")) if "val/loss" in row]
    assert row["val/loss"] != other["val/loss"]
    assert train(*SHORT, "name=half", "limit_val_batches=12", "batch_size=10", "max_steps=1").code == 0
    (half,) = [row for row in rows(the_run(workspace, "half")) if "val/loss" in row]
    assert row["val/loss"] == half["val/loss"]  # 12.5 batches become 12, the even number


@pytest.mark.parametrize(
    "wrong",
    ["limit_train_batches=0", "limit_train_batches=1.5", "limit_val_batches=0.0", "limit_val_batches=-1",
     "limit_val_batches=true", "val_every_epochs=-0.5", "val_every_epochs=nan", "val_every_epochs=inf"],
)  # fmt: skip
def test_what_is_no_part(engine, wrong):
    with pytest.raises(engine("errors").UserError, match=wrong.partition("=")[0]):
        engine("launch").compose(wrong)


def test_a_run_with_fractions_resumes_exactly(train, workspace):
    options = (*SHORT, "val_every_epochs=0.3", "limit_train_batches=0.5", "limit_val_batches=0.5", "epochs=2")
    options = (
        *options,
        "log.every=1",
        "monitor=val/loss",
        "monitor_mode=min",
        "scheduler=plateau",
        "scheduler.patience=0",
    )
    assert train(*options, "name=whole").code == 0
    for _ in range(3):
        assert train(*options, "name=stopped", "resume=auto", "max_minutes=0.00001").code == 75
    assert train(*options, "name=stopped", "resume=auto").code == 0
    assert_stopped_as_whole(workspace)


def test_a_share_and_a_count_are_other_runs(train, workspace):
    assert train(*SHORT, "limit_train_batches=1", "epochs=1").code == 0
    assert train(*SHORT, "limit_train_batches=1.0", "epochs=1", "resume=auto", "max_steps=2").code == 0
    assert len(list((workspace / "runs/default").glob("2*"))) == 2


def test_the_eta_counts_them(engine):
    due = engine("log.report").due
    for period in (Fraction(11, 2), Fraction(7, 3), Fraction(1), 4):
        validated = [step for step in range(1, 41) if step % period < 1 or step == 40]
        for first in range(1, 41):
            assert due(first, 40, (period,)) == len([step for step in validated if step >= first]), (period, first)


def test_all_checkpoints_are_kept(train, workspace):
    assert train(*SHORT, "keep_last=null", "save_every_steps=1", "max_steps=6").code == 0
    folder = the_run(workspace)
    assert len(list((folder / "checkpoints").glob("step-*.pt"))) == 6
    assert train("resume=auto", *SHORT, "keep_last=2", "save_every_steps=1", "max_steps=7").code == 0
    assert len(list((folder / "checkpoints").glob("step-*.pt"))) == 2
