"""What `log.windows` and `log.by` may say, and what they refuse."""

import json
import statistics

import pytest
from helpers.runs import rows, the_run

LOGGED = ("epochs=1", "limit_train_batches=12", "limit_val_batches=1", "logger=none", "model=mlp", "log.every=5")
TWO_LOSSES = """
from torch import nn
from .engine.api import record
from .task import Classification

class TwoLosses(Classification):
    def training_step(self, model, batch, ctx):
        logits = model(batch[0])
        loss1 = nn.functional.cross_entropy(logits, batch[1])
        loss2 = logits.square().mean()
        record("loss_tmp", (loss1 - loss2).abs())
        return {"loss1": loss1, "loss2": loss2, "loss": loss1 + 0.01 * loss2}
"""
# The examples of the documentation of mmengine's log processor, and how they are said here.
MMENGINE = {
    "a global mean in place of the default": (
        "[{source: loss1, statistic: mean, window: global}]",
        {"loss1": ("loss1", "mean", 12)},
    ),
    "and beside it": (
        "[{source: loss1, name: loss1_global, statistic: mean, window: global}]",
        {"loss1": ("loss1", "mean", 2), "loss1_global": ("loss1", "mean", 12)},
    ),
    "a local and a global maximum": (
        "[{source: loss1, name: local_max, statistic: max, window: 10}, "
        "{source: loss1, name: global_max, statistic: max, window: global}]",
        {"loss1": ("loss1", "mean", 2), "local_max": ("loss1", "max", 10), "global_max": ("loss1", "max", 12)},
    ),
    "a large window beside a small one": (
        "[{source: loss, statistic: mean, window: 3}, "
        "{source: loss, name: loss_large_window, statistic: mean, window: 8}]",
        {"loss": ("loss", "mean", 3), "loss_large_window": ("loss", "mean", 8)},
    ),
    "over the epoch": (
        "[{source: loss2, name: loss2_epoch, statistic: min, window: epoch}, {source: loss2, statistic: current}]",
        {"loss2_epoch": ("loss2", "min", 12), "loss2": ("loss2", "current", 1)},
    ),
    "a value from inside of the model": (
        "[{source: loss_tmp, statistic: mean, window: 10}]",
        {"loss_tmp": ("loss_tmp", "mean", 10)},
    ),
}


@pytest.fixture
def two_losses(workspace):
    (workspace / "digits/two_losses.py").write_text(TWO_LOSSES)
    return workspace


@pytest.mark.parametrize("example", MMENGINE)
def test_the_examples_of_mmengine(train, two_losses, example):
    text, entries = MMENGINE[example]
    task = "task._target_=.two_losses.TwoLosses"
    for name, windows, every in (("steps", "[]", 1), ("windows", text, 5)):
        done = train(*LOGGED, task, "monitor=val/loss", f"name={name}", f"log.windows={windows}", f"log.every={every}")
        assert done.code == 0, done.out
    steps = [row for row in rows(the_run(two_losses, "steps")) if "train/loss" in row]
    last = [row for row in rows(the_run(two_losses, "windows")) if "train/loss" in row][-1]
    assert last["step"] == len(steps) == 12
    shown = next(line for line in done.out.splitlines() if "[12/12]" in line)
    for name, (source, statistic, count) in entries.items():
        values = [row[f"train/{source}"] for row in steps[-count:]]
        fold = {"mean": statistics.fmean, "max": max, "min": min, "current": lambda v: v[-1]}[statistic]
        assert last[f"train/{name}"] == pytest.approx(fold(values), rel=1e-9), name
        assert f" {name} " in shown


ONE = "{source: loss, statistic: mean, window: 3}"
WRONG = {
    "[{source: loss, statistic: median, window: 3}]": "log.windows[0].statistic=median",
    "[{source: loss, statistic: mean, window: 0}]": "log.windows[0].window=0",
    "[{source: loss, statistic: mean, window: -1}]": "log.windows[0].window=-1",
    "[{source: loss, statistic: mean, window: 2.5}]": "log.windows[0].window=2.5",
    "[{source: loss, statistic: mean, window: true}]": "log.windows[0].window=True",
    "[{source: loss, statistic: mean, window: run}]": "log.windows[0].window=run",
    "[{source: loss, statistic: mean}]": "log.windows[0] needs a source, a statistic and a window",
    "[{source: loss, window: 3}]": "log.windows[0] needs a source, a statistic",
    "[{statistic: mean, window: 3}]": "log.windows[0] needs a source, a statistic",
    "[{source: 3, statistic: mean, window: 3}]": "log.windows[0].source=3",
    "[{source: loss, name: '', statistic: mean, window: 3}]": "log.windows[0].name= is not possible",
    "[{source: loss, statistic: mean, windows: 3}]": "Did you mean 'window'?",
    f"[{ONE}, {ONE}]": "log.windows[1] has the same name 'loss'",
    f"[{ONE}, {{source: acc, name: loss, statistic: max, window: 9}}]": "log.windows[1] has the same name 'loss'",
    "3": "log.windows",
    "[3]": "log.windows",
    "{source: loss}": "log.windows",
}


@pytest.mark.parametrize("value", WRONG)
def test_a_mistake_in_log_windows_is_one_sentence(train, workspace, value):
    done = train(f"log.windows={value}")
    assert done.code == 2, done.out
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert WRONG[value] in done.last
    assert not (workspace / "runs").exists()


@pytest.mark.parametrize("override", ["log.by=iteration", "log.images=-1", "log.histograms=0"])
def test_other_mistakes_in_log(train, workspace, override):
    done = train(override)
    assert done.code == 2, done.out
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert override in done.last
    assert not (workspace / "runs").exists()


@pytest.mark.parametrize("by", ["step", "epoch"])
@pytest.mark.parametrize(("batch_size", "step"), [(64, 20), (16, 50)])
def test_a_source_that_nothing_logs(train, workspace, by, batch_size, step):
    """This is known after the first epoch or its first 50 steps, before anything is saved."""
    windows = "[{source: los, statistic: max, window: 3}]"
    options = (f"batch_size={batch_size}", "model=mlp", "epochs=2", "logger=none", "log.every=10")
    done = train(*options, f"log.by={by}", f"log.windows={windows}")
    assert done.code == 1, done.out
    assert "Traceback" not in done.out
    assert f"'los' in log.windows. The first {step} steps logged loss, acc. Did you mean 'loss'?" in done.last
    folder = the_run(workspace)
    assert json.loads((folder / "manifest.json").read_text())["status"] == "failed"
    assert not list((folder / "checkpoints").iterdir())
    logged_before = range(10, step, 10) if by == "step" else []
    assert [row["step"] for row in rows(folder)] == list(logged_before)
