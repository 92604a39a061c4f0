"""The starting point `dense_prediction`: what it reaches, shows and repeats."""

import pytest
from helpers.runs import result, rows
from helpers.starting_points import assert_nothing_of_others, point_fixture, shown
from PIL import Image

# Large motion leaves each picture with another number of pixels that stay in view.
SHORT = (
    "epochs=2", "batch_size=16", "limit_train_batches=5", "limit_val_batches=2", "data.size=100", "data.motion=8",
    "optimizer=sgd", "lr=0.01",
)  # fmt: skip


point = point_fixture("dense_prediction", *SHORT)


def test_it_learns_and_shows_motion(point):
    run = point.default_run("epochs=10")  # 15 reach more
    assert result(run)["best"] <= 0.5
    last = [row for row in rows(run) if "val/epe" in row][-1]
    assert last["val/1px"] >= 0.9
    assert last["val/3px"] >= 0.99
    pictures, _ = shown(run)
    assert set(pictures) == {"train/inputs", "val/flow"}
    assert pictures["val/flow"] > 1


def test_loss_is_the_weighted_sum_of_its_logged_terms(point):
    done = point.train(*point.short, "name=terms", "loss.loss1=0.5", "loss.loss2=0.25")
    assert done.code == 0, done.out
    seen = 0
    for row in rows(point.run("terms")):
        for place in ("train", "train_epoch", "val"):
            if f"{place}/loss" in row:
                seen += 1
                assert row[f"{place}/supervised"] == pytest.approx(row[f"{place}/epe"], rel=1e-5)
                total = row[f"{place}/epe"] + 0.5 * row[f"{place}/loss1"] + 0.25 * row[f"{place}/loss2"]
                assert row[f"{place}/loss"] == pytest.approx(total, rel=1e-5)
    assert seen > 4


def test_nothing_of_other_starting_points(point):
    there = {"configs/data/moving_textures.yaml", "configs/model/flow_net.yaml", "configs/experiment/unsupervised.yaml"}
    code = {"digits/data/moving_textures.py", "digits/data/plots.py", "digits/models/flow_net.py"}
    assert_nothing_of_others(point.project, there | code)


def test_it_is_small(point):
    point.assert_small({"task.py": 50, "models/flow_net.py": 75, "losses.py": 60})


def test_exact(point):
    point.assert_exact()


def test_in_parts(point):
    point.assert_equal_in_parts()


def test_a_step_without_a_valid_pixel_leaves_the_gradients_at_zero(point):
    """Then only the optimizer changes the weights, in one micro-batch and in several."""
    hashes = []
    for parts in (1, 4):
        done = point.train(*point.short, "data.motion=1e9", f"accumulate={parts}", f"name=nothing{parts}")
        assert done.code == 0, done.out
        hashes.append(result(point.run(f"nothing{parts}"))["weights_sha256"])
    assert hashes[0] == hashes[1]


def test_a_diverging_run_is_told(point):
    done = point.train(*point.short, "lr=1e20", "name=diverges")
    assert done.code == 76, done.out
    assert "not finite" in done.last


def test_tools(point, tmp_path):
    done = point.train(*point.short, "name=tools", "experiment=unsupervised")
    assert done.code == 0, done.out
    for number in range(4):
        Image.new("RGB", (50, 40), (40 * number, 90, 200)).save(tmp_path / f"{number}.png")
    said = point.assert_tools_work("tools", tmp_path, ["path", "right", "down", "largest"], 3)
    assert [row["path"].rsplit("/", 1)[1] for row in said] == ["0.png", "1.png", "2.png"]
    assert all(row["largest"] >= abs(row["right"]) for row in said)
    refused = point.tool("predict", point.run("tools"), tmp_path / "0.png")
    assert refused.code == 2
    assert "two pictures" in refused.last


@pytest.mark.parametrize("overrides", [("data.side=8",), ("data.motion=0",), ("loss.loss1=much",)], ids=" ".join)
def test_mistakes(point, overrides):
    done = point.train(*overrides, "name=wrong")
    assert done.code == 2, done.out
    assert overrides[-1].partition("=")[0] in done.last
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert not (point.project / "runs/wrong").exists()
