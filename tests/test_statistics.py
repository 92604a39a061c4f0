"""Statistics of logged values: every one recomputed from the values of single steps."""

import collections
import itertools
import json
import math
import random
import statistics
from pathlib import Path

import pytest
import torch
import yaml
from helpers import snippets
from helpers.runs import logged, rows, the_run

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
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        counts = collections.Counter(step for step, *_ in lines)
        tried = counts[0] - counts[2]  # before the run, the check of a batch calls the task as well
        for step, key, value, n in lines[tried:]:
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
    assert ours.not_finite is None, "only a loss must be finite"
    logged = ours.log_point()
    assert all(math.isnan(logged[f"train/{s}"]) == (s != "current") for s in STATISTICS)
    assert logged["train/current"] == 2


def test_the_first_loss_that_is_not_finite(windows):
    ours = windows.Statistics(torch.device("cpu"))
    for step, loss in enumerate((1.0, 2.0, math.inf, 1.0, math.nan)):
        ours.add(step, {"loss": torch.tensor(loss)}, 1)
        assert ours.not_finite is None, "known when it is fetched"
    ours.fetch()
    assert ours.not_finite == (2, "loss")
    ours.add(5, {"loss": torch.tensor(math.nan)}, 1)
    ours.fetch()
    assert ours.not_finite == (2, "loss")


def test_the_first_gradient_that_is_not_finite(windows, engine):
    """Told apart from a loss, which spoils the gradient of its step; found however often it is fetched."""
    look = engine("machine.torch_internals").look_for_not_finite
    for bad_loss, right in ((4, (3, "gradient")), (3, (3, "loss")), (2, (2, "loss")), (None, (3, "gradient"))):
        for fetched in ((), (2,), (3,), (1, 4)):
            ours = windows.Statistics(torch.device("cpu"))
            for step in range(6):
                ours.add(step, {"loss": torch.tensor(math.nan if step == bad_loss else 1.0)}, 1)
                look([torch.tensor([1.0, math.inf if step == 3 else 0.0])], *ours.bad_gradient)
                if step in fetched:
                    ours.fetch()
            ours.fetch()
            assert ours.not_finite == right


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


def test_a_resumed_run_may_log_other_windows(train, noting, tmp_path):
    options = (*OPTIONS, "logger=none", "name=stopped")
    assert train(*options, NOTES=str(tmp_path / "notes"), AT="16").code == 75
    folder = the_run(noting, "stopped")
    windows = "[{source: loss, name: new, statistic: max, window: global}, "
    windows += "{source: loss1, name: max global, statistic: max, window: global}]"
    done = train(f"resume={folder}", f"log.windows={windows}", NOTES=str(tmp_path / "notes"))
    assert done.code == 0, done.out
    assert "log.windows changed. New at step 18: new." in " ".join(done.out.split())
    values, last = per_step(tmp_path / "notes"), rows(folder)[-2]
    assert last["step"] == 26
    assert last["train/new"] == pytest.approx(expected(values["loss"], "max", 17, 25))
    assert last["train/max global"] == pytest.approx(expected(values["loss1"], "max", 0, 25))
    assert "train/std 3" not in last
