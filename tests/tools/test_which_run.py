"""A command without RUN takes the newest run; `runs/NAME` means the best run of this name."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.tools import logged, runs


@pytest.fixture
def some(digits: Path, tmp_path: Path) -> Path:
    """A project with runs of two names that tests may change. That of "ema" began last."""
    return shutil.copytree(digits, tmp_path / "some")


def values(folder: Path) -> dict[Path, float]:
    return {run: json.loads((run / "manifest.json").read_text())["result"]["best"] for run in runs(folder, "seeds")}


def test_the_newest_run(tool, some):
    (run,) = runs(some, "ema")
    done = tool("export", "--format", "safetensors", project=some)
    assert done.code == 0, done.out
    assert f"runs/ema/{run.name} is the newest run." in done.out
    assert (run / "model.safetensors").exists()
    again = some / "runs/ema/reproduced"
    shutil.copytree(run, again / run.name)
    manifest = json.loads((again / run.name / "manifest.json").read_text())
    (again / run.name / "manifest.json").write_text(json.dumps({**manifest, "started": "2999-01-01T00:00:00+00:00"}))
    assert f"runs/ema/{run.name} is the newest run." in tool("evaluate", project=some).out


def test_the_best_run_of_a_name(tool, some):
    found = values(some)
    best = max(found, key=found.get)
    done = tool("evaluate", "runs/seeds", project=some)
    assert done.code == 0, done.out
    said = f"runs/seeds/{best.name} is the best run of the setting with the best mean, lr=0.01: val/acc 0."
    assert said in done.out
    result = json.loads((best / "evaluate-val.json").read_text())
    assert result["values"]["val/acc"] == found[best]


def log(run: Path, tag: str, value: float) -> None:
    """Let all validations of a run have this value."""
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, **({tag: value} if tag in row else {})}) + "\n" for row in rows))


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_best_setting_has_the_best_mean(engine, some, mode, capsys, monkeypatch):
    """Seeds 0, 1 and 2 with lr=0.003: one of them is lucky. Then the other setting, lr=0.01, with one run."""
    chosen, sign = engine("tools.chosen"), 1 if mode == "max" else -1
    tag = "val/acc" if mode == "max" else "val/loss"
    of = {"lr=0.01" in (run / "manifest.json").read_text(): run for run in runs(some, "seeds")}
    alone, seeds = of[True], [run for run in runs(some, "seeds") if run != of[True]]
    for run in (alone, *seeds):
        path = run / "config.yaml"
        path.write_text(
            path.read_text().replace("monitor: val/acc", f"monitor: {tag}").replace("mode: max", f"mode: {mode}")
        )
    for run, value in zip(seeds, (0.5, 0.9, 0.5), strict=True):
        log(run, tag, sign * value)
    for value, best in ((0.7, alone), (0.6, seeds[1])):
        log(alone, tag, sign * value)
        assert chosen.one_run(some / "runs/seeds") == best
    assert "the best mean, lr=0.003: " + f"{tag} {'' if mode == 'max' else '-'}0.6333 ± 0.23" in capsys.readouterr().err
    shutil.rmtree(alone)
    assert chosen.one_run(some / "runs/seeds") == seeds[1]
    assert f"is the best of 3 runs: {tag}" in capsys.readouterr().err


def test_only_runs_with_one_monitor_can_be_ranked(tool, some):
    done = tool("evaluate", "runs", project=some)
    assert done.code == 0, done.out
    path = runs(some, "seeds")[0] / "config.yaml"
    path.write_text(path.read_text().replace("monitor: val/acc", "monitor: val/loss").replace("mode: max", "mode: min"))
    done = tool("evaluate", "runs/seeds", project=some)
    assert done.code == 2
    assert done.last == "The runs in runs/seeds monitor different values: val/acc (max), val/loss (min). Name one run."


def test_without_any_run_the_message_says_what_to_name(tool, some):
    shutil.rmtree(some / "runs")
    done = tool("evaluate", project=some)
    assert (done.code, done.last) == (2, "No run is in runs. Name a run folder, such as runs/NAME/TIME.")


def test_compare_takes_all_runs_of_the_newest_name(tool, some):
    done = tool("compare", project=some)
    assert done.code == 0, done.out
    assert [line.split()[0] for line in done.out.splitlines()[1:2]] == [f"ema/{runs(some, 'ema')[0].name}"]


def test_predict_takes_paths_alone(tool, some, tmp_path):
    from PIL import Image

    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (run,) = runs(some, "ema")
    one = tool("predict", tmp_path / "a.png", tmp_path / "a.png", project=some)
    assert one.code == 0, one.out
    assert f"runs/ema/{run.name} is the newest run." in one.out
    assert one.out.count(f"{tmp_path}/a.png,") == 2
    mixed = tool("predict", run, "--out", tmp_path / "b.csv", tmp_path / "a.png", project=some)
    assert mixed.code == 0, mixed.out
    assert (tmp_path / "b.csv").read_text().count("a.png") == 1


def test_data_that_were_moved_without_a_run(tool, some):
    done = tool("evaluate", "--split", "val", "data.root=nowhere", project=some)
    assert done.code == 0 or "data" in done.last, done.out
    assert "is the newest run." in done.out


def test_hashes_are_short_on_the_console_and_whole_in_files(some, server):
    done = server.run(some / "train.py", "name=short", "max_steps=2", "logger=none", "log.curves=false", "model=mlp")
    assert done.code == 0, done.out
    (run,) = runs(some, "short")
    digest = json.loads((run / "manifest.json").read_text())["result"]["weights_sha256"]
    assert len(digest) == 64
    assert done.last.endswith(f", weights_sha256 {digest[:16]}…")
    assert f"weights_sha256 {digest}\n" in (run / "train.log").read_text()
    assert logged(run)


def test_runs_of_reproduce_alone_are_no_newest_run(tool, some):
    (run,) = runs(some, "ema")
    again = some / "runs/ema/reproduced"
    again.mkdir()
    run.rename(again / run.name)
    shutil.rmtree(some / "runs/seeds")
    for other in (some / "runs").iterdir():
        if other.name != "ema":
            shutil.rmtree(other) if other.is_dir() else other.unlink()
    done = tool("evaluate", project=some)
    assert done.code == 2, done.out
    assert "holds only runs that `reproduce` made" in done.last
    (some / "runs/ema").rename(some / "runs/mine")
    (some / "runs/mine/reproduced").rename(some / "runs/reproduced")  # a name like any other
    assert f"runs/reproduced/{run.name} is the newest run." in tool("evaluate", project=some).out


def test_predict_without_a_file_says_so(tool, some):
    (run,) = runs(some, "ema")
    done = tool("predict", run, project=some)
    assert done.code == 2
    assert done.last == "Name the files to predict after the run."
