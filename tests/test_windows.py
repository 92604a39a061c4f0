"""Logged values: every one recomputed from the values of single steps, and what logging costs."""

import collections
import itertools
import json
import math
import random
import statistics
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from helpers import snippets
from helpers.machine import NEEDS_COMPILER, NEEDS_GPU
from helpers.runs import logged, rows, the_run
from torch.utils._python_dispatch import TorchDispatchMode

STATISTICS = ("current", "max", "mean", "min", "std")
SPANS = (1, 3, 10, "epoch", "global")
ENTRIES = [
    {"source": "loss1", "name": f"{statistic} {span}", "statistic": statistic, "window": span}
    for statistic, span in itertools.product(STATISTICS, SPANS)
]
ENTRIES += [
    {"source": "loss", "statistic": "mean", "window": "global"},
    {"source": "now and then", "name": "一 min", "statistic": "min", "window": 2},
    {"source": "now and then", "name": "一 mean", "statistic": "mean", "window": "epoch"},
    {"source": "层 output", "name": "层 最大", "statistic": "max", "window": 5},
    {"source": "positive", "statistic": "std", "window": "epoch"},
    {"source": "scale", "statistic": "current"},
]
PER_EPOCH = 13
OPTIONS = ("experiment=noting", "epochs=2", "batch_size=100", "drop_last=false", "val_every_epochs=2", "lr=0.01")


@pytest.fixture
def noting(workspace, tmp_path):
    """The workspace with the task above and an experiment that logs every statistic and window."""
    snippets.add(workspace, "digits/noting.py")
    log = {"every": 7, "windows": ENTRIES}
    experiment = {"task": {"_target_": ".noting.Noting"}, "model": {"_target_": ".noting.Twice"}, "log": log}
    text = "# @package _global_\ndefaults: [{override /model: noting}]\n"
    (workspace / "configs/model/noting.yaml").write_text("_target_: .noting.Twice\n")
    text += yaml.safe_dump({k: v for k, v in experiment.items() if k != "model"}, allow_unicode=True)
    (workspace / "configs/experiment/noting.yaml").write_text(text)
    (tmp_path / "notes").mkdir()
    return workspace


def per_step(notes: Path) -> dict[str, dict[int, tuple[float, float]]]:
    """The value of each step and what it was taken over, by key; from all micro-batches and processes."""
    pairs = collections.defaultdict(lambda: collections.defaultdict(list))
    for path in sorted(notes.iterdir()):
        for line in path.read_text().splitlines():
            step, key, value, n = json.loads(line)
            pairs[key][step].append((value, n))
    values = {}
    for key, steps in pairs.items():
        sums = {s: (math.fsum(v * n for v, n in p), math.fsum(n for _, n in p)) for s, p in steps.items()}
        values[key] = {step: (total / n, n) for step, (total, n) in sums.items() if n}
    return values


def expected(values: dict[int, tuple[float, float]], statistic: str, first: int, last: int) -> float | None:
    """The statistic over the steps from `first` to `last`."""
    chosen = [values[step] for step in range(first, last + 1) if step in values]
    plain = [value for value, _ in chosen]
    if not chosen:
        return None
    if statistic == "mean":
        return math.fsum(v * n for v, n in chosen) / math.fsum(n for _, n in chosen)
    if statistic == "std":
        return statistics.stdev(plain) if len(plain) > 1 else 0.0
    return {"max": max, "min": min, "current": lambda p: p[-1]}[statistic](plain)


def check(folder: Path, notes: Path, log_points: list[int]) -> None:
    """Recompute every value of metrics.jsonl from the values of single steps."""
    values = per_step(notes)
    named = {entry.get("name", entry["source"]) for entry in ENTRIES}
    train = [row for row in rows(folder) if "train/loss" in row]
    assert [row["step"] for row in train] == log_points
    before = 0
    for row in train:
        last = row["step"] - 1
        tags = {}
        for key in values.keys() - named:
            tags[f"train/{key}"] = expected(values[key], "mean", before, last)
        for entry in ENTRIES:
            window = entry.get("window", 1)
            epoch_begins = last // PER_EPOCH * PER_EPOCH
            first = {"epoch": epoch_begins, "global": 0}.get(window) if isinstance(window, str) else last + 1 - window
            tag = f"train/{entry.get('name', entry['source'])}"
            tags[tag] = expected(values[entry["source"]], entry["statistic"], max(first, 0), last)
        if row["step"] % PER_EPOCH == 0:
            for key in values:
                tags[f"train_epoch/{key}"] = expected(values[key], "mean", row["step"] - PER_EPOCH, last)
        tags = {tag: value for tag, value in tags.items() if value is not None}
        assert {tag for tag in row if tag.startswith(("train/", "train_epoch/"))} == tags.keys()
        for tag, value in tags.items():
            assert row[tag] == pytest.approx(value, rel=1e-11, abs=1e-14), (row["step"], tag)
        before = row["step"]


EVERY_7 = [7, 13, 14, 21, 26]


def test_every_statistic_over_every_window_also_resumed(train, noting, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for name, at in (("whole", ""), ("stopped", "16")):
        (tmp_path / "notes" / name).mkdir()
        done = train(*OPTIONS, "accumulate=2", f"name={name}", NOTES=str(tmp_path / "notes" / name), AT=at)
        assert done.code == (75 if at else 0), done.out
    done = train("name=stopped", f"resume={the_run(noting, 'stopped')}", NOTES=str(tmp_path / "notes/stopped"))
    assert done.code == 0, done.out
    for name in ("whole", "stopped"):
        folder = the_run(noting, name)
        check(folder, tmp_path / "notes" / name, EVERY_7)
        events = EventAccumulator(str(folder / "tensorboard"))
        events.Reload()
        tags = {tag for row in rows(folder) for tag in row if tag not in ("step", "epoch")}
        assert tags <= set(events.Tags()["scalars"])
        for tag in tags:
            mine = [(row["step"], pytest.approx(row[tag], rel=1e-6)) for row in rows(folder) if tag in row]
            assert [(e.step, e.value) for e in events.Scalars(tag)] == mine, tag
    assert logged(the_run(noting, "whole")) == logged(the_run(noting, "stopped"))


def test_how_often_values_are_logged_changes_none_of_them(train, noting, tmp_path):
    for every in (1, 4):
        notes = tmp_path / f"notes/{every}"
        notes.mkdir()
        assert train(*OPTIONS, f"log.every={every}", f"name=every{every}", "logger=none", NOTES=str(notes)).code == 0
    check(the_run(noting, "every1"), tmp_path / "notes/1", list(range(1, 27)))
    often = {row["step"]: row for row in rows(the_run(noting, "every1")) if "train/loss" in row}
    compared = 0
    for row in rows(the_run(noting, "every4")):
        for entry in ENTRIES:
            tag = f"train/{entry.get('name', entry['source'])}"
            if "train/loss" in row:
                compared += 1
                assert row.get(tag) == often[row["step"]].get(tag), tag
    assert compared == 8 * len(ENTRIES)


def test_log_points_at_the_ends_of_epochs(train, noting, tmp_path):
    done = train(*OPTIONS, "log.by=epoch", "max_steps=20", "logger=none", NOTES=str(tmp_path / "notes"))
    assert done.code == 0, done.out
    check(the_run(noting), tmp_path / "notes", [13, 20])


def test_two_processes_log_what_all_of_them_saw(train_together, noting, tmp_path):
    notes = tmp_path / "notes"
    options = (*OPTIONS, "accumulate=2", "logger=none", "name=two")
    stopped = train_together(*options, NOTES=str(notes), AT="16", ON="1")
    folder = the_run(noting, "two")
    assert json.loads((folder / "manifest.json").read_text())["status"] == "stopped", stopped.out
    done = train_together(f"resume={folder}", NOTES=str(notes))
    assert done.code == 0, done.out
    assert sorted(path.name for path in notes.iterdir()) == ["0.jsonl", "1.jsonl"]
    check(folder, notes, EVERY_7)


# ---------------------------------------------------------------- the same without a run


@pytest.fixture
def windows(engine):
    return engine("log.statistics")


def random_steps(seed: int) -> list[dict[str, tuple[float, float]]]:
    draw = random.Random(seed)
    steps = []
    for step in range(60):
        values = {"loss": (draw.gauss(2, 1), draw.choice([1, 7, 64]))}
        if step % 5 == 0 or draw.random() < 0.3:
            values["rare"] = (draw.gauss(1e6, 1e-3), draw.choice([1, 3]))
        steps.append(values)
    return steps


@pytest.mark.parametrize("seed", range(5))
def test_fetching_and_resuming_at_any_step_change_nothing(windows, engine, tmp_path, seed):
    """The state goes through a file, as in a checkpoint. The results are equal bit for bit."""
    entries = [
        {"source": source, "name": f"{source} {statistic} {span}", "statistic": statistic, "window": span}
        for source, statistic, span in itertools.product(("loss", "rare"), STATISTICS, (1, 4, 1000, "epoch", "global"))
    ]
    steps, draw = random_steps(seed), random.Random(seed)

    def run(disturb: bool) -> list[dict[str, float]]:
        ours, out = windows.Statistics(torch.device("cpu"), entries), []
        for step, values in enumerate(steps):
            for key, (value, n) in values.items():
                value = torch.tensor(value, dtype=torch.float64)
                ours.add(step, {key: engine("api").Mean(value, torch.tensor(n) if n == 7 else n)}, 1)
            if disturb and draw.random() < 0.4:
                ours.fetch()
            if disturb and draw.random() < 0.3:
                ours.fetch()
                torch.save(ours.state_dict(), tmp_path / "state.pt")
                ours = windows.Statistics(torch.device("cpu"), entries)
                ours.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
            if step % 7 == 6:
                ours.fetch()
                out.append(ours.log_point())
            if step % 20 == 19:
                ours.fetch()
                out.append({**ours.log_point(), **ours.epoch_end()})
        return out

    assert run(disturb=True) == run(disturb=False)


def filled(windows, entries: list[dict], values: list[float], **kwargs: float):
    ours = windows.Statistics(torch.device("cpu"), entries)
    for step, value in enumerate(values):
        ours.add(step, {"x": torch.tensor(value, dtype=torch.float64)}, 1)
    return ours


def test_a_spread_is_that_of_torch_std_and_never_negative(windows):
    entries = [{"source": "x", "name": str(w), "statistic": "std", "window": w} for w in ("global", 50)]
    for values in ([1e6 + 1e-3 * (k % 3) for k in range(500)], [0.1] * 500, [1e-300, -1e-300] * 9, [3.0]):
        ours = filled(windows, entries, values)
        ours.fetch()
        logged = ours.log_point()
        for name, chosen in (("global", values), ("50", values[-50:])):
            expected = torch.tensor(chosen, dtype=torch.float64).std().item() if len(chosen) > 1 else 0.0
            assert logged[f"train/{name}"] == pytest.approx(expected, rel=1e-6, abs=1e-16)
            assert logged[f"train/{name}"] >= 0


def test_not_a_number_stays_visible(windows):
    entries = [{"source": "x", "name": s, "statistic": s, "window": w} for s, w in zip(STATISTICS, itertools.repeat(3))]
    ours = filled(windows, entries, [1.0, math.nan, 2.0])
    ours.fetch()
    assert ours.first_not_finite is None, "only a loss must be finite"
    logged = ours.log_point()
    assert all(math.isnan(logged[f"train/{s}"]) == (s != "current") for s in STATISTICS)
    assert logged["train/current"] == 2


def test_the_first_loss_that_is_not_finite(windows):
    ours = windows.Statistics(torch.device("cpu"))
    for step, loss in enumerate((1.0, 2.0, math.inf, 1.0, math.nan)):
        ours.add(step, {"loss": torch.tensor(loss)}, 1)
        assert ours.first_not_finite is None, "known when it is fetched"
    ours.fetch()
    assert ours.first_not_finite == 2
    ours.add(5, {"loss": torch.tensor(math.nan)}, 1)
    ours.fetch()
    assert ours.first_not_finite == 2


def test_a_mean_over_nothing_counts_for_nothing(windows, engine):
    Mean = engine("api").Mean
    ours = windows.Statistics(torch.device("cpu"), [{"source": "x", "name": "max", "statistic": "max", "window": 9}])
    ours.add(0, {"x": Mean(torch.tensor(3.0), torch.tensor(2))}, 1)
    ours.add(1, {"x": Mean(torch.tensor(math.nan), torch.tensor(0))}, 1)
    ours.fetch()
    assert ours.log_point() == {"train/x": 3, "train/max": 3}
    ours.add(2, {"x": Mean(torch.tensor(math.nan), 0)}, 1)
    ours.fetch()
    assert math.isnan(ours.log_point()["train/x"])


def test_values_are_kept_as_they_are_when_they_are_logged(windows, engine):
    api, weight = engine("api"), torch.nn.Parameter(torch.tensor([1.0]))
    ours = windows.Statistics(torch.device("cpu"))
    for step in range(3):
        with api.recording() as recorded:
            total = weight * 10
            api.record("first", total, n=torch.tensor(2))
            total += 1
        count = torch.tensor(2**24 + 1)  # no float32
        ours.add(step, {**recorded, "weight": weight, "tokens": count, "half": weight.detach().bfloat16()}, 8)
        with torch.no_grad():
            weight += 1
    ours.fetch()
    assert ours.means() == {"first": 20, "weight": 2, "tokens": 2**24 + 1, "half": 2}


def test_a_share_is_counted_in_its_step(windows, engine):
    Share, drawn = engine("api").Share, torch.Generator().manual_seed(0)
    steps = [torch.rand(samples, generator=drawn) for samples in (8, 8, 3, 8, 1)]
    entries = [{"source": key, "name": f"{key}s", "statistic": "max", "window": 1} for key in ("high", "x")]
    ours = windows.Statistics(torch.device("cpu"), entries)
    for step, values in enumerate(steps):
        shared = values.clone()
        high, low = Share(lambda v: v > 0.5, shared), Share(lambda a, b: a[:, 0] < b, shared[:, None], 1 - shared)
        ours.add(step, {"loss": torch.tensor(0.0), "high": high, "low": low, "x": torch.tensor(float(step))}, 1)
        shared.zero_()  # as an owner may: the share was counted before
        ours.fetch()
        named = ours.log_point()
        assert (named["train/highs"], named["train/xs"]) == ((values > 0.5).double().mean().item(), step)
    means = ours.epoch_end()
    total = sum((values > 0.5).sum().item() for values in steps)
    assert means["train_epoch/high"] == pytest.approx(total / 28, abs=1e-12)
    assert means["train_epoch/high"] + means["train_epoch/low"] == pytest.approx(1)


@pytest.mark.parametrize("holds", [lambda x: x, lambda x: x[:2] > 0])
def test_a_share_that_is_none_is_named(windows, engine, holds):
    api, ours = engine("api"), windows.Statistics(torch.device("cpu"))
    with pytest.raises(api.UserError, match=r"The Share 'acc' is torch\..*\. Return bool \[4\]"):
        ours.add(0, {"acc": api.Share(holds, torch.rand(4))}, 4)


def test_a_share_weighs_as_much_as_it_has_rows(windows, engine):
    Share, ours = engine("api").Share, windows.Statistics(torch.device("cpu"))
    for step, values in enumerate([torch.ones(1), torch.zeros(4), torch.zeros(0)]):
        ours.add(step, {"loss": torch.tensor(1.0), "acc": Share(lambda x: x > 0, values)}, 8)
    ours.fetch()
    assert ours.means() == {"loss": 1.0, "acc": pytest.approx(0.2)}


def test_constant_memory_over_epochs_and_runs(windows):
    def size(steps: int) -> int:
        entries = [
            {"source": "x", "name": f"{s}{w}", "statistic": s, "window": w}
            for s in STATISTICS
            for w in ("epoch", "global", 5)
        ]
        ours = filled(windows, entries, [float(step) for step in range(steps)])
        ours.fetch()
        ours.log_point()
        return len(json.dumps(ours.state_dict(), default=lambda tensor: tensor.flatten().tolist()).split(","))

    assert size(1000) == size(20)


def test_many_values_are_joined_before_they_are_fetched(windows):
    ours = filled(windows, [], [float(step) for step in range(10_000)])
    assert len(ours._held) < 5000
    ours.fetch()
    assert ours.means() == {"x": 4999.5}


# ---------------------------------------------------------------- what log.windows may say

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
    "[{source: loss, statistic: mean}]": "log.windows[0].window=None",
    "[{source: loss, window: 3}]": "log.windows[0] needs a source, a statistic",
    "[{statistic: mean, window: 3}]": "log.windows[0] needs a source, a statistic",
    "[{source: 3, statistic: mean, window: 3}]": "log.windows[0].source=3",
    "[{source: loss, name: '', statistic: mean, window: 3}]": "log.windows[0].name=''",
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


def test_a_resumed_run_may_log_other_windows(train, noting, tmp_path):
    options = (*OPTIONS, "logger=none", "name=stopped")
    assert train(*options, NOTES=str(tmp_path / "notes"), AT="16").code == 75
    folder = the_run(noting, "stopped")
    windows = "[{source: loss, name: new, statistic: max, window: global}, "
    windows += "{source: loss1, name: max global, statistic: max, window: global}]"
    done = train(f"resume={folder}", f"log.windows={windows}", NOTES=str(tmp_path / "notes"))
    assert done.code == 0, done.out
    assert "log.windows changed. New entries start at step 18: new." in " ".join(done.out.split())
    values, last = per_step(tmp_path / "notes"), rows(folder)[-2]
    assert last["step"] == 26
    assert last["train/new"] == pytest.approx(expected(values["loss"], "max", 17, 25))
    assert last["train/max global"] == pytest.approx(expected(values["loss1"], "max", 0, 25))
    assert "train/std 3" not in last


# ---------------------------------------------------------------- record


@pytest.fixture
def recording(workspace):
    snippets.add(workspace, "digits/recording.py")
    (workspace / "configs/model/recording.yaml").write_text("_target_: .recording.Recording\n")
    return workspace


RECORDED = ("model=recording", "epochs=1", "logger=none", "log.every=1", "max_steps=8", "batch_size=32", "lr=0.01")
KEYS = {"loss", "acc", "scale", "block", "few", "logits"}


def values_of(workspace: Path, name: str) -> list[dict]:
    kept = [
        {k: v for k, v in row.items() if k.startswith(("train", "val"))} for row in logged(the_run(workspace, name))
    ]
    assert len(kept) == 9
    assert all(row.keys() == {f"train/{key}" for key in KEYS} for row in kept[:8])
    assert kept[8].keys() == {f"val/{key}" for key in KEYS}
    return kept


def test_a_forward_that_is_repeated_in_the_backward_records_once(train, recording):
    for name, checkpointed in (("plain", "false"), ("checkpointed", "true")):
        done = train(*RECORDED, f"name={name}", f"+model.checkpointed={checkpointed}")
        assert done.code == 0, done.out
    assert values_of(recording, "plain") == values_of(recording, "checkpointed")


@pytest.fixture
def module(engine):
    """The model above, in the package that `engine` imports."""
    engine("api")
    module = ModuleType("digits.recording")
    module.__package__ = "digits"
    exec(snippets.text("digits/recording.py"), module.__dict__)
    return module


def test_several_records_of_a_step_are_averaged(module, windows, engine):
    """The mean is over all calls of a module that is used twice, and of another one with the same name."""
    api, model, seen = engine("api"), module.Recording(10), []
    for block in (model.block, model.other):
        block.last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ours = windows.Statistics(torch.device("cpu"))
    with api.recording() as recorded:
        model(torch.randn(5, 64))
    ours.add(0, {"loss": torch.zeros(()), **recorded}, 5)
    ours.fetch()
    means = ours.means()
    assert means["block"] == pytest.approx(torch.stack([y.square().mean() for y in seen]).mean().item())
    weights = torch.stack([(y[0] > 0).sum() for y in seen])
    expected = (torch.stack([y[0].mean() for y in seen]) * weights).sum() / weights.sum()
    assert means["few"] == pytest.approx(expected.item())
    assert all(not value.requires_grad for values in recorded.values() for value in values if torch.is_tensor(value))


def test_what_a_step_returns_takes_the_place_of_what_it_records(looped, engine):
    api, loop = engine("api"), looped("max_steps=1", "limit_val_batches=1", "logger=none")
    step = loop.parts.task.training_step

    def training_step(model, batch, ctx):
        api.record("acc", torch.tensor(-1.0))
        api.record("other", torch.tensor(-1.0))
        return step(model, batch, ctx)

    loop.parts.task.training_step = training_step
    loop.fit()
    row = rows(loop.run.folder)[0]
    assert row["train/acc"] >= 0
    assert row["train/other"] == -1


@pytest.mark.parametrize("value", ["0.5", "torch.zeros(3)", "None"])
def test_what_cannot_be_recorded_is_named(train, recording, value):
    path = recording / "digits/recording.py"
    path.write_text(path.read_text().replace('record("logits", total)', f'record("logits", {value})'))
    done = train(*RECORDED)
    assert done.code == 2, done.out
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert "'logits'" in done.last
    assert not (recording / "runs").exists()


def test_recording_leaves_a_compiled_graph_whole(module, engine):
    """There is one graph without a break. Every call records the right values and keeps nothing of the graph."""
    import torch._dynamo
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    api, counter = engine("api"), CompileCounter()
    model = module.Recording(10)
    compiled = torch.compile(model, dynamic=False, fullgraph=True, backend=counter)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    kept = []
    for _ in range(5):
        images = torch.randn(5, 64)
        both = []
        for forward in (compiled, model):
            with api.recording() as recorded:
                logits = forward(images)
            both.append(recorded)
        assert both[0].keys() == both[1].keys() == KEYS - {"loss", "acc"}
        for key, values in both[0].items():
            torch.testing.assert_close(values, both[1][key])
            assert len(values) == (3 if key in ("block", "few") else 1)
        kept.append(both[0]["scale"][0])
        assert kept[-1].grad_fn is None
        logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert counter.frame_count == 1, "compiled once"
    assert len({float(scale) for scale in kept}) == 5, "each step's own value, not the last one's"
    compiled(images)  # outside of a step: it records nothing and does not fail
    assert not api._recorded


@NEEDS_COMPILER
def test_recording_in_a_compiled_run(train, recording):
    done = train(*RECORDED, "name=plain")
    assert done.code == 0, done.out
    done = train(*RECORDED, "name=compiled", "compile=true")
    assert done.code == 0, done.out
    assert "graph break" not in done.out
    for plain, compiled in zip(values_of(recording, "plain"), values_of(recording, "compiled"), strict=True):
        assert plain == pytest.approx(compiled, rel=1e-3, abs=1e-5)


def test_recording_on_two_processes(recording, train, train_together):
    done = train_together(*RECORDED, "name=two")
    assert done.code == 0, done.out
    assert train(*RECORDED, "name=one", "accumulate=2").code == 0
    for one, two in zip(values_of(recording, "one"), values_of(recording, "two"), strict=True):
        assert one == pytest.approx(two, rel=1e-4, abs=1e-6)


# ---------------------------------------------------------------- what logging costs

EVERYTHING = (
    "model=mlp", "clip_grad_norm=1", "clip_grad_value=1", "ema_decay=0.9", "accumulate=2", "scheduler=cosine",
    "epochs=2", "log.every=8", "workers=0", "loss=terms", "max_minutes=60",
    "log.windows=[{source: loss, name: most, statistic: max, window: 5}, {source: acc, statistic: std, window: epoch}]",
)  # fmt: skip
WAITING = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__")


class Waits(TorchDispatchMode):
    """Count the operations that wait for the device, for each part of the loop."""

    OPS = {"aten::_local_scalar_dense", "aten::equal", "aten::nonzero", "aten::is_nonzero", "aten::masked_select"}

    def __init__(self, loop) -> None:
        super().__init__()
        self.loop, self.where, self.inside = loop, "step", False
        self.counts = collections.Counter()

    def count(self, name):
        # After the first step loggers show the model, and the config after the last.
        if self.where != "step" or 1 < self.loop.step < self.loop.parts.total_steps:
            self.counts[self.where, name] += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in self.OPS and not self.inside:
            self.count(func._schema.name)
        return func(*args, **(kwargs or {}))

    def method(self, name):
        inner = getattr(torch.Tensor, name)

        def counted(tensor, *args, **kwargs):
            outer, self.inside = self.inside, True  # one wait, whatever it is made of
            if not outer:
                self.count(name)
            try:
                return inner(tensor, *args, **kwargs)
            finally:
                self.inside = outer

        return counted

    def place(self, owner, name, where):
        inner = getattr(owner, name)

        def placed(*args, **kwargs):
            before, self.where = self.where, where
            try:
                return inner(*args, **kwargs)
            finally:
                self.where = before

        return placed


def counted(loop, monkeypatch) -> Waits:
    """Train to the end and count what waits."""
    waits = Waits(loop)
    for name in ("log", "validate", "save", "next_batch"):  # a batch is read on the host, whatever the device
        monkeypatch.setattr(loop, name, waits.place(loop, name, name))
    for name in WAITING:
        monkeypatch.setattr(torch.Tensor, name, waits.method(name))
    with waits:
        loop.fit()
    monkeypatch.undo()
    return waits


def test_a_step_never_waits_for_the_device(looped, monkeypatch):
    loop = looped(*EVERYTHING, "device=cpu")
    waits = counted(loop, monkeypatch)
    assert loop.step == 40
    log_points = len([row for row in rows(loop.run.folder) if "train/loss" in row])
    assert log_points == 6
    assert {key: n for key, n in waits.counts.items() if key[0] == "step"} == {}
    assert {key: n for key, n in waits.counts.items() if key[0] == "log"} == {("log", "tolist"): log_points}


def test_waiting_would_be_noticed(looped, monkeypatch):
    loop = looped(*EVERYTHING, "device=cpu", "max_steps=5")
    step = loop.parts.task.training_step

    def impatient(model, batch, ctx):
        values = step(model, batch, ctx)
        loss = values["loss"].detach()
        assert loss < 1e9
        assert loss.tolist() < 1e9
        assert loss.item() < 1e9
        return values

    loop.parts.task.training_step = impatient
    waits = counted(loop, monkeypatch)
    assert {key[1]: n for key, n in waits.counts.items() if key[0] == "step"} == {"__bool__": 6, "tolist": 6, "item": 6}


@pytest.mark.cuda
@NEEDS_GPU
@pytest.mark.parametrize("counted", [False, True], ids=["tensor", "mean"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_never_waits_for_the_gpu(looped, monkeypatch, precision, counted, engine):
    api = engine("api")
    loop = looped(*EVERYTHING, "device=cuda", f"precision={precision}")
    step, allowed, its = loop.training_step, [], loop.parts.task.training_step

    def counting(model, batch, ctx):
        values = its(model, batch, ctx)
        return {**values, "loss": api.Mean(values["loss"], len(batch[1]))} if counted else values

    loop.parts.task.training_step = counting

    def strict(batches):
        torch.cuda.set_sync_debug_mode("error" if loop.step >= 3 else "default")  # the first steps set things up
        try:
            step(batches)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        allowed.append(loop.step)

    monkeypatch.setattr(loop, "training_step", strict)
    loop.fit()
    assert len(allowed) == 40
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError):
            torch.ones((), device="cuda").item()  # the mode does notice
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_log_point_is_one_event(looped):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    loop = looped(*EVERYTHING, "device=cpu", "logger=tensorboard")
    loop.fit()
    events = collections.Counter()
    for path in (loop.run.folder / "tensorboard").glob("events*"):
        for event in EventFileLoader(str(path)).Load():
            tags = {value.tag for value in event.summary.value}
            if "train/loss" in tags:
                assert {"train/acc", "train/most", "train/grad_norm", "lr/all", "time/step"} <= tags
            if any(tag.startswith(("train/", "lr/", "time/")) and tag != "train/inputs" for tag in tags):
                events[event.step] += 1
    assert events == dict.fromkeys((8, 16, 20, 24, 32, 40), 1)
