"""`python -m digits predict RUN PATH…`."""

import csv
import json
import math
import statistics
from pathlib import Path

import pytest
from helpers.tools import MLP, SMALL, logged, result
from PIL import Image


@pytest.fixture
def validation_pictures(engine, digits, tmp_path) -> tuple[Path, list[int]]:
    """The validation pictures of the digits as PNG files, and their labels."""
    engine("rng")  # makes `digits` importable
    from digits.data.digits import Digits

    folder = tmp_path / "val pictures"
    folder.mkdir()
    images = Digits(shift=1).split("val")
    for number in range(len(images)):
        Image.fromarray(images.canvases[number, 0]).save(folder / f"{number:03}.png")
    return folder, images.labels.tolist()


def test_a_file_is_predicted_as_it_is_evaluated(tool, run, validation_pictures, tmp_path):
    folder, labels = validation_pictures
    out = tmp_path / "out.jsonl"
    assert tool("predict", run, folder, "--out", out).code == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [Path(row["path"]).name for row in rows] == [f"{i:03}.png" for i in range(250)]
    assert tool("evaluate", run).code == 0
    matrix = [[0] * 10 for _ in range(10)]
    for row, label in zip(rows, labels, strict=True):
        matrix[label][int(row["label"])] += 1
        assert row["probability"] == max(row["probabilities"].values())
        assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert matrix == result(run)["confusion"]
    losses = [-math.log(row["probabilities"][str(y)]) for row, y in zip(rows, labels, strict=True)]
    assert statistics.fmean(losses) == pytest.approx(result(run)["values"]["val/loss"], rel=1e-5)


def test_predict_as_a_table_for_some_files_and_workers(tool, ema_run, validation_pictures):
    folder, _ = validation_pictures
    names = [folder / f"{i:03}.png" for i in (3, 1, 2)]
    done = tool("predict", ema_run, *names, "--batch-size", "2", "--workers", "2")
    assert done.code == 0, done.out
    rows = list(csv.DictReader(done.out.splitlines()))
    assert list(rows[0]) == ["path", "label", "probability", *map(str, range(10))]
    assert [row["path"] for row in rows] == [str(name) for name in names]
    done = tool("predict", ema_run, ema_run, folder)  # as of runs/NAME/*
    assert (done.code, f"{ema_run} is a second run." in done.out) == (2, True), done.out


def test_predict_with_an_image_folder(tool, train, workspace, pictures, tmp_path):
    done = train(*SMALL, *MLP, "data=image_folder", f'data.root="{pictures}"', "data.val_fraction=0.5", "batch_size=20")
    assert done.code == 0, done.out
    (run,) = (p for p in (workspace / "runs/default").iterdir() if not p.name.startswith("."))
    done = tool("evaluate", run, project=workspace)
    assert done.code == 0
    assert "Warning" not in done.out
    found = result(run)
    assert found["class_names"] == ["cross", "disc", "方块"]
    out = tmp_path / "out.csv"
    done = tool("predict", run, pictures, "--out", out, "--workers", "2", project=workspace)
    assert done.code == 0, done.out
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == ["path", "label", "probability", "cross", "disc", "方块"]
    assert len(rows) == 120
    assert tool("evaluate", run, "--checkpoint", "last", project=workspace).code == 0
    assert result(run)["values"] == {key: logged(run)[key] for key in ("val/loss", "val/acc")}

    broken = tmp_path / "broken.png"
    broken.write_bytes((pictures / "disc/1.png").read_bytes()[:60])
    before = out.read_bytes()
    for workers in ("0", "2"):
        done = tool("predict", run, pictures / "disc", broken, "--out", out, "--batch-size", "8",
                    "--workers", workers, project=workspace)  # fmt: skip
        assert done.code == 2
        assert str(broken) in done.last
        assert "Traceback" not in done.out
    assert out.read_bytes() == before
