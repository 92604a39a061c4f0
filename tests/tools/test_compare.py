"""`python -m digits compare RUN…`."""

import json
import statistics
from pathlib import Path
from types import SimpleNamespace

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
    done = tool("compare", tmp_path / "elsewhere", "--out", tmp_path / "new/curves.png", "--key", "train/loss")
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
