"""`data=arrays` of the starting point `regression`: numbers in .npy and .npz files."""

import json

import numpy as np
import pytest
from helpers import snippets
from helpers.runs import result
from helpers.starting_points import point_fixture

SHORT = ("data=arrays", "epochs=3", "workers=0", "lr=0.01")
point = point_fixture("regression", *SHORT)


def save(folder, **arrays) -> None:
    """Save arrays as .npy files in `folder`, and as `folder`.npz."""
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.savez(folder.with_suffix(".npz"), **arrays)


@pytest.fixture(scope="module")
def numbers(point):
    """Inputs of very different sizes, and two targets that follow from them without noise."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(300, 3)) * [1, 10, 1000] + [0, 5, 1e6]
    y = ((x - x.mean(axis=0)) / x.std(axis=0)) @ np.array([[1, 0.5], [0.2, 0], [1, 3]])
    save(point.project / "numbers", x=x, y=y)
    return x, y


def test_both_kinds_of_files_train_alike_and_predict(point, numbers):
    x, y = numbers
    hashes = []
    for path in ("numbers", "numbers.npz"):
        done = point.train(*SHORT[:1], "epochs=60", "lr=0.01", f"data.path={path}", f"name={path}")
        assert done.code == 0, done.out
        hashes.append(result(point.run(path))["weights_sha256"])
    assert hashes[0] == hashes[1]
    assert result(point.run("numbers"))["best"] < 0.1, "the deviation of the targets is above 1"
    np.save(point.project / "new.npy", x[:5])
    out = point.project / "said.jsonl"
    done = point.tool("predict", point.run("numbers"), point.project / "new.npy", "--out", out)
    assert done.code == 0, done.out
    said = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["path"].rsplit(":", 1)[1] for row in said] == ["1", "2", "3", "4", "5"]
    np.testing.assert_allclose([row["y"] for row in said], y[:5], atol=0.5)
    (point.project / "numbers.npz").rename(point.project / "away.npz")  # only the run is left
    done = point.tool("export", point.run("numbers.npz"), "--format", "safetensors")
    assert done.code == 0, done.out
    np.save(point.project / "narrow.npy", x[:5, :2])
    done = point.tool("predict", point.run("numbers"), point.project / "narrow.npy")
    assert (done.code, done.last) == (2, "The files have 2 columns, but the model takes 3.")
    np.savez(rows := point.project / "rows.npz", x=x[:5])
    done = point.tool("predict", point.run("numbers"), rows)
    assert (done.code, done.last) == (2, f"{rows} is not a .npy file. Save its rows with np.save.")


def test_rows_are_right_and_scaled_by_the_training_rows(point, numbers, tmp_path, monkeypatch):
    """In a process of its own, because another project is called `digits`, too."""
    x, y = numbers
    save(
        point.project / "parts",
        train_x=x[:200],
        train_y=y[:200],
        x_val=x[200:260],
        y_val=y[200:260],
        x_test=x[260:],
        y_test=y[260:],
    )
    save(point.project / "line", x=np.arange(10), y=np.arange(10) ** 2)
    snippets.add(point.project, "rows_of_arrays.py")
    done = point.server.run(point.project / "rows_of_arrays.py", cwd=point.project)
    assert done.code == 0, done.out


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a": np.arange(9), "y": np.arange(9)}, "has no array 'x', but a, y. Set data.x=NAME."),
        ({"x": np.arange(9), "y": np.arange(8)}, "The arrays of train are [9, 1] and [8, 1]."),
        ({"x": np.zeros((9, 2, 2)), "y": np.arange(9)}, "x is float64 [9, 2, 2]. Give numbers, [N] or [N, columns]."),
        ({"x": np.array(["a"] * 9), "y": np.arange(9)}, "x is <U1 [9]."),
        ({"x": np.full(99, np.nan), "y": np.arange(99)}, "has NaN or infinite numbers. Leave out their rows."),
        ({"x": np.zeros(0), "y": np.zeros(0)}, "The arrays of train are empty. Give rows, or leave them out."),
        (
            {"x": np.arange(9), "y": np.arange(9), "x_val": np.arange(2), "y_val": np.array([1, np.inf])},
            "has NaN or infinite numbers",
        ),
        ({"x": np.arange(2), "y": np.arange(2)}, "leaves no row for training. Give it more."),
    ],
)
def test_arrays_that_cannot_work_are_refused(point, tmp_path, arrays, said):
    save(tmp_path / "a", **arrays)
    done = point.train(*SHORT, f"data.path={tmp_path}/a", "name=wrong")
    assert done.code == 2, done.out
    assert said in done.last
    assert not (point.project / "runs/wrong").exists()
