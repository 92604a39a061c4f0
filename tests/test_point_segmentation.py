"""The starting point `segmentation`: what it reaches, shows and repeats."""

import pytest
from helpers.runs import result, rows
from helpers.starting_points import assert_nothing_of_others, point_fixture, shown
from PIL import Image

SHORT = (
    "epochs=2", "batch_size=16", "limit_train_batches=5", "limit_val_batches=2", "data.size=100", "optimizer=sgd",
    "lr=0.05",
)  # fmt: skip


point = point_fixture("segmentation", *SHORT)


def test_it_learns_and_shows_masks(point):
    run = point.default_run()
    assert result(run)["best"] >= 0.85
    for row in rows(run):
        for place in ("train", "val"):
            if f"{place}/loss" in row:
                assert row[f"{place}/loss"] == pytest.approx(row[f"{place}/ce"] + row[f"{place}/dice"], rel=1e-5)
    pictures, _ = shown(run)
    assert set(pictures) == {"train/inputs", "val/predictions", "val/mistakes"}
    assert pictures["val/predictions"] > 1


def test_nothing_of_other_starting_points(point):
    there = {"configs/data/shapes.yaml", "configs/model/unet.yaml", "configs/experiment/cross_entropy_only.yaml"}
    there |= {"configs/data/folders.yaml", "digits/data/folders.py"}
    assert_nothing_of_others(
        point.project, there | {"digits/data/shapes.py", "digits/data/plots.py", "digits/models/unet.py"}
    )


def test_it_is_small(point):
    point.assert_small({"task.py": 60, "models/unet.py": 60, "losses.py": 45})


def test_exact(point):
    point.assert_exact()


def test_in_parts(point):
    point.assert_equal_in_parts()


def test_tools(point, tmp_path):
    done = point.train(*point.short, "name=tools", "experiment=cross_entropy_only")
    assert done.code == 0, done.out
    for number in range(3):
        Image.new("RGB", (50 + number, 40), (40 * number, 90, 200)).save(tmp_path / f"{number}.png")
    for row in point.assert_tools_work("tools", tmp_path, ["path", "shares", "mask"], 3):
        assert list(row["shares"]) == ["background", "disc", "box", "triangle"]
        assert sum(row["shares"].values()) == pytest.approx(1)


@pytest.mark.parametrize("overrides", [("data.side=8",), ("data.shift=-1",), ("model.depth=many",)], ids=" ".join)
def test_mistakes(point, overrides):
    done = point.train(*overrides, "name=wrong")
    assert done.code == 2, done.out
    assert overrides[-1].partition("=")[0] in done.last
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert not (point.project / "runs/wrong").exists()
