"""`python -m digits compare RUN…`."""

import json
import shutil
import statistics
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.tools import runs
from PIL import Image


def test_compare_over_seeds(tool, digits, tmp_path):
    done = tool("compare", digits / "runs/seeds", "--out", tmp_path / "curves.png")
    assert done.code == 0, done.out
    lines = done.out.splitlines()
    assert lines[0].split()[:5] == ["run", "seed", "lr", "status", "steps"]
    folders = runs(digits, "seeds")
    values = []
    for folder in folders:
        (line,) = (line for line in lines if line.startswith(f"seeds/{folder.name} "))
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["result"]["weights_sha256"].startswith(line.split()[-1])
        if "lr=0.01" not in manifest["overrides"]:
            values.append(manifest["result"]["last"])
    (line,) = (line for line in lines if "over seeds" in line)
    assert "val/acc over seeds 0, 1, 2 with lr=0.003: " in line
    assert f"last {statistics.fmean(values):.5g} ± {statistics.stdev(values):.2g}" in line
    assert Image.open(tmp_path / "curves.png").size[0] > 400


def test_compare_of_moved_and_unfinished_runs(tool, digits, run, ema_run, tmp_path):
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["result"]
    (run / "manifest.json").write_text(json.dumps({**manifest, "status": "stopped"}))
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 9')
    packed = tmp_path / "a.run.zip"  # as runs/NAME/* names it
    done = tool("compare", packed, tmp_path / "elsewhere", "--out", tmp_path / "new/curves.png", "--key", "train/loss")
    assert done.code == 0, done.out
    assert "stopped" in done.out
    assert "±" not in done.out
    assert (tmp_path / "new/curves.png").exists()


def test_compare_shows_a_missing_value_as_a_dash(engine):
    run = SimpleNamespace(config={"clip": None, "lr": 0.1})
    assert engine("tools.compare")._values(run, ["clip", "lr", "new"]) == ["-", "0.1", "-"]


@pytest.mark.parametrize(("value", "shown"), [("short", ["key=short0", "key=short1"]), ("long" * 20, ["a/0", "a/1"])])
def test_compare_names_curves_so_that_the_legend_fits(engine, monkeypatch, value, shown):
    compare, names = engine("tools.compare"), []
    monkeypatch.setattr(
        compare, "save_figure", lambda figure, _: names.extend(line.get_label() for line in figure.axes[0].lines)
    )
    runs = [
        SimpleNamespace(config={"key": f"{value}{n}"}, shown=f"a/{n}", rows=[{"step": 1, "val/acc": 0.5}])
        for n in range(2)
    ]
    compare.draw_comparison(runs, ["key"], "val/acc", Path("x.png"))
    assert names == shown


def drawn(compare, monkeypatch, runs: list, keys: list[str]):
    """The axes of a comparison of val/acc."""
    kept = []
    monkeypatch.setattr(compare, "save_figure", lambda figure, _: kept.append(figure))
    compare.draw_comparison(runs, keys, "val/acc", Path("x.png"))
    return kept[0].axes[0]


def logged(name: str, values: list[float], **config: object) -> SimpleNamespace:
    rows = [{"step": step, "val/acc": value} for step, value in enumerate(values)]
    return SimpleNamespace(config=config, shown=name, rows=rows)


@pytest.mark.parametrize("repeat", ["seed", "data.fold"])
def test_compare_draws_one_colour_for_each_setting_with_a_band(engine, monkeypatch, repeat):
    draw = np.random.default_rng(0)
    values = draw.random((2, 3, 5))
    runs = [
        logged(f"a/{lr}{seed}", values[lr, seed].tolist(), lr=lr, **{repeat: seed})
        for lr in (0, 1)
        for seed in (0, 1, 2)
    ]
    runs[0].rows.append({"step": 5, "val/acc": 9.0})  # a step that the others have not reached
    axes = drawn(engine("tools.compare"), monkeypatch, runs, ["lr", repeat])
    assert [line.get_label() for line in axes.lines] == ["lr=0, mean of 3 runs", "lr=1, mean of 3 runs"]
    assert len(axes.collections) == 2
    for lr, (line, band) in enumerate(zip(axes.lines, axes.collections, strict=True)):
        assert line.get_color() == f"C{lr}"
        mean, deviation = values[lr].mean(axis=0), values[lr].std(axis=0, ddof=1)
        np.testing.assert_allclose(line.get_ydata(), mean)
        edge = band.get_paths()[0].vertices
        for step in range(5):
            at = edge[edge[:, 0] == step][:, 1]
            np.testing.assert_allclose([at.min(), at.max()], [(mean - deviation)[step], (mean + deviation)[step]])


def test_compare_draws_runs_of_one_config_as_two_lines(engine, monkeypatch):
    """Their code may differ."""
    runs = [logged("a/1", [0.1], seed=0), logged("a/2", [0.2], seed=0)]
    axes = drawn(engine("tools.compare"), monkeypatch, runs, [])
    assert [line.get_label() for line in axes.lines] == ["a/1", "a/2"]


def test_compare_passes_over_runs_and_values_that_cannot_be_averaged(engine, monkeypatch):
    runs = [logged("a/1", [0.1, float("nan"), 0.3], seed=0), logged("a/2", [0.2, 0.3, 0.4], seed=1)]
    runs.append(logged("a/3", [], seed=2))
    axes = drawn(engine("tools.compare"), monkeypatch, runs, ["seed"])
    (line,), (band,) = axes.lines, axes.collections
    np.testing.assert_allclose(line.get_ydata(), [0.15, np.nan, 0.35])
    assert set(band.get_paths()[0].vertices[:, 0]) == {0, 2}


def test_compare_over_folds_says_which(engine):
    runs = [
        SimpleNamespace(status="finished", monitor="val/acc", last=0.5 + fold, best=0.6 + fold, config=config)
        for fold in (0, 1, 10)
        for config in [{"data.fold": fold, "seed": 3}]
    ]
    (line,) = engine("tools.compare").means_over_repeats(runs)
    last = [run.last for run in runs]
    assert line.startswith(f"val/acc over folds 0, 1, 10: last {statistics.fmean(last):.5g} ± ")


def test_compare_of_other_models_shows_their_classes_and_not_all_their_keys(engine):
    configs = [
        {"lr": 0.1, "model._target_": "Net", "model.width": 8, "data.root": "a"},
        {"lr": 0.2, "model._target_": "Net", "model.width": 8, "data.root": "a"},
        {"lr": 0.2, "model._target_": "Deep", "model.depth": 2, "model.dropout": 0, "data.root": "b"},
        {"lr": 0.2, "model._target_": "Deep", "model.depth": 3, "data.root": "b"},
    ]
    runs = [SimpleNamespace(config=config) for config in configs]
    differing = engine("tools.compare").differing_keys
    assert differing(runs) == ["lr", "model._target_", "data.root", "model.depth", "model.dropout"]
    assert differing(runs[:2]) == ["lr"]
    assert differing([runs[0], runs[2]]) == ["lr", "model._target_", "data.root"]


def test_compare_of_tagged_runs(tool, digits, tmp_path):
    done = tool("compare", digits / "runs/seeds", "--tagged", "paper", "--out", tmp_path / "x.png")
    assert done.code == 2
    assert done.last == "None of the runs has the tag 'paper'. Set tags=[paper] in a run."
    folder = tmp_path / "elsewhere/runs"
    for number, run in enumerate(runs(digits, "seeds")[:2]):
        shutil.copytree(run, folder / run.name)
        config = folder / run.name / "config.yaml"
        config.write_text(config.read_text().replace("tags: []", f"tags: [paper, n{number}]"))
    done = tool("compare", folder, "--tagged", "n1", "--out", tmp_path / "x.png")
    assert done.code == 0, done.out
    assert done.out.splitlines()[0].split()[1] == "tags"
    assert done.out.count("['paper', 'n1']") == 1
    assert "'n0'" not in done.out
