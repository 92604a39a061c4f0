"""`data=arrays`: pictures in .npy files, which are mapped into memory, and in one .npz file."""

import pickle

import numpy as np
import pytest
from helpers.runs import result, the_run

OPTIONS = {"x": "x", "y": "y", "val_fraction": 0.2, "test_fraction": 0.0, "range": "auto", "shift": 0}
OPTIONS |= {"flip": False, "mean": 0.5, "std": 0.5}


@pytest.fixture
def arrays(engine, tmp_path):
    """`arrays(file, x=…, y=…, options…)`: the data of arrays that are saved before, as .npz or in a folder."""
    engine("rng")  # makes `digits` importable
    from digits.data.arrays import Arrays

    def arrays(saved: dict[str, np.ndarray], kind: str = "npz", **options: object):
        place = tmp_path / kind
        if kind == "npz":
            place = tmp_path / "arrays.npz"
            np.savez(place, **saved)
        else:
            place.mkdir(exist_ok=True)
            for name, array in saved.items():
                np.save(place / f"{name}.npy", array)
        return Arrays(**{**OPTIONS, "path": str(place), **options})

    return arrays


def pictures(count: int = 40, shape: tuple[int, ...] = (6, 5), dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(dtype)


def samples(split) -> list[tuple[bytes, int]]:
    pairs = [split[index] for index in range(len(split))]
    return [(image.numpy().tobytes(), label if isinstance(label, int) else label.tolist()) for image, label in pairs]


@pytest.mark.parametrize("kind", ["npz", "npy"])
@pytest.mark.parametrize(
    ("shape", "channels"), [((6, 5), 1), ((6, 5, 3), 3), ((3, 6, 5), 3), ((1, 6, 5), 1), ((6, 5, 4), 4)]
)
def test_each_pixel_is_right(arrays, kind, shape, channels):
    x, y = pictures(shape=shape), np.arange(40) % 4
    data = arrays({"x": x, "y": y}, kind)
    assert data.info["shape"] == (channels, 6, 5)
    assert data.info["class_names"] == ["0", "1", "2", "3"]
    seen = []
    for name in ("train", "val"):
        split, rows = data.split(name), data.found[2][name]
        for index, row in enumerate(rows):
            picture = x[row].astype(np.float64)
            wanted = picture[None] if x.ndim == 3 else picture if shape[0] == channels else picture.transpose(2, 0, 1)
            image, label = split[index]
            np.testing.assert_allclose(image.numpy(), (wanted / 255 - 0.5) / 0.5, atol=1e-6)
            assert label == y[row]
        images, labels = split.batch(np.array([1, 0]), np.zeros(2, np.uint64))
        assert (images[1] == split[0][0]).all()
        assert labels.tolist() == y[rows[[1, 0]]].tolist()
        seen += rows.tolist()
    assert sorted(seen) == list(range(40))
    assert np.bincount(y[data.found[2]["val"]]).tolist() == [2, 2, 2, 2], "of each class"
    assert data.split("test") is None


def test_files_are_mapped_and_not_read(arrays):
    data = arrays({"x": pictures(), "y": np.arange(40) % 4}, "npy")
    stored = data.split("train").pixels
    assert isinstance(stored.arrays[0], np.memmap)
    sent = pickle.dumps(data.split("train"))
    assert len(sent) < 4000, "a loader worker opens the file itself"
    assert samples(pickle.loads(sent)) == samples(data.split("train"))
    assert samples(data.split("val")) == samples(arrays({"x": pictures(), "y": np.arange(40) % 4}).split("val"))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64, bool])
def test_other_numbers_have_one_range(arrays, dtype):
    x = pictures() > 99 if dtype is bool else (pictures().astype(dtype) * 9 - (90 if dtype != np.uint16 else 0))
    if dtype is np.float32:
        x[0, 0, 0], x[1, 1, 1] = np.nan, np.inf
    x = x.astype(dtype)
    for kind in ("npz", "npy"):
        data = arrays({"x": x, "y": np.arange(40) % 4}, kind)
        train = x[data.found[2]["train"]].astype(np.float64)
        low, high = train[np.isfinite(train)].min(), train[np.isfinite(train)].max()
        assert data.info["range"] == [low, high]
        for name, rows in data.found[2].items():
            shares = np.clip((np.nan_to_num(x[rows].astype(np.float64), nan=low) - low) / (high - low), 0, 1)
            found = np.stack([data.split(name)[index][0].numpy()[0] for index in range(len(rows))])
            np.testing.assert_allclose(found, (shares - 0.5) / 0.5, atol=1e-5)


def test_a_range_may_be_given(arrays):
    data = arrays({"x": np.full((10, 2, 2), 30, np.uint16), "y": np.arange(10) % 2}, range=[10, 50])
    assert data.info["range"] == [10, 50]
    assert data.split("val")[0][0].unique().tolist() == pytest.approx([0.0])


@pytest.mark.parametrize("form", ["{split}_{name}", "{name}_{split}"])
def test_names_may_hold_the_split(arrays, form):
    x, saved = pictures(30), {}
    for split, rows in (("train", slice(0, 20)), ("valid", slice(20, 26)), ("test", slice(26, 30))):
        saved[form.format(split=split, name="images")] = x[rows]
        saved[form.format(split=split, name="labels")] = (np.arange(30) % 2)[rows, None]
    for kind in ("npz", "npy"):
        data = arrays(saved, kind, x="images", y="labels")
        assert {name: len(data.split(name)) for name in ("train", "val", "test")} == {"train": 20, "val": 6, "test": 4}
        np.testing.assert_allclose(data.split("val")[3][0].numpy()[0], x[23] / 127.5 - 1, atol=1e-6)
        assert data.split("test")[1][1] == 1


def test_labels_of_every_kind(arrays):
    names = np.array(["cat", "dog", "eel", "dog"] * 10)
    data = arrays({"x": pictures(), "y": names})
    assert data.info["class_names"] == ["cat", "dog", "eel"]
    assert [data.split("val")[index][1] for index in range(len(data.split("val")))] == [
        ["cat", "dog", "eel"].index(name) for name in names[data.found[2]["val"]]
    ]
    assert arrays({"x": pictures(), "y": np.eye(4)[np.arange(40) % 4]}).info["classes"] == 4
    from_seven = arrays({"x": pictures(), "y": 7 + np.arange(40) % 2})
    assert from_seven.info["class_names"] == ["7", "8"]
    assert {from_seven.split("train")[index][1] for index in range(32)} == {0, 1}
    several = (np.random.default_rng(0).random((40, 3)) < 0.5).astype(np.int64)
    data = arrays({"x": pictures(), "y": several}, test_fraction=0.1)
    assert data.info["multi_label"] is True
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [28, 8, 4]
    for index, row in enumerate(data.found[2]["train"]):
        assert data.split("train")[index][1].tolist() == several[row].tolist()


def test_pictures_move_and_mirror_by_their_key(arrays):
    x, keys = pictures(), np.random.default_rng(1).integers(0, 2**63, 8).astype(np.uint64)
    for kind in ("npz", "npy"):
        train = arrays({"x": x, "y": np.arange(40) % 4}, kind, shift=2, flip=True).split("train")
        images, _ = train.batch(np.arange(8), keys)
        down, right, mirrored = train.draw(keys)
        for index in range(8):
            canvas = np.pad(x[train_rows(train, index, x)], 2)
            top, left = int(down[index]), int(right[index])
            window = canvas[top : top + 6, left : left + 5].astype(np.float64)
            window = window[:, ::-1] if mirrored[index] else window
            np.testing.assert_allclose(images[index, 0].numpy(), window / 127.5 - 1, atol=1e-6)


def train_rows(train, index: int, x: np.ndarray) -> int:
    """The row of a training picture, found by its pixels in the middle."""
    plain = train.cut(np.array([index]), np.array([2]), np.array([2]))[0, 0]
    (row,) = [row for row in range(len(x)) if (x[row] == plain).all()]
    return row


def test_folds_go_over_the_arrays_of_train_and_val(arrays):
    x, y = pictures(33), np.arange(33) % 3
    saved = {
        "x_train": x[:20],
        "y_train": y[:20],
        "x_val": x[20:29],
        "y_val": y[20:29],
        "x_test": x[29:],
        "y_test": y[29:],
    }
    for kind in ("npz", "npy"):
        parts = [arrays(saved, kind, folds=4, fold=fold).found[2] for fold in range(4)]
        assert sorted(row for part in parts for row in part["val"]) == list(range(29))
        for part in parts:
            assert part["test"].tolist() == [29, 30, 31, 32]
            assert sorted([*part["train"], *part["val"]]) == list(range(29))
            assert np.ptp(np.bincount(y[part["val"]], minlength=3)) <= 1


@pytest.mark.parametrize(
    ("saved", "options", "said"),
    [
        ({"a": pictures(), "y": np.arange(40)}, {}, "has no array 'x', but a, y. Set data.x=NAME."),
        ({"x": pictures()}, {}, "has no array 'y', but x. Set data.y=NAME."),
        ({"x": pictures(), "y": np.arange(39)}, {}, "has 39 labels. Give as many of each"),
        ({"x": np.zeros((40, 6)), "y": np.arange(40)}, {}, "x is float64 [40, 6]. Pictures are numbers [N, H, W]"),
        ({"x": np.zeros((40, 6, 5, 9)), "y": np.arange(40)}, {}, "of 1 to 4 channels"),
        ({"x": pictures(), "y": np.linspace(0, 1, 40)}, {}, "The labels are float64 [40]. Give a class"),
        ({"x": pictures(), "y": np.arange(40) % 4}, {"range": [0, 9]}, "data.range=[0, 9] is not possible with uint8."),
        (
            {"x": pictures(dtype=np.int32), "y": np.arange(40) % 4},
            {"range": [9, 0]},
            "data.range=[9, 0] is not possible",
        ),
        (
            {"x": pictures(), "y": np.arange(40) % 4},
            {"shift": 5},
            "data.shift=5 must be pixels, at least 0 and below 5.",
        ),
        ({"x": pictures(), "y": np.arange(40) % 4}, {"val_fraction": 1.0}, "below 1 together"),
        ({"x": pictures(), "y": np.arange(40)}, {}, "leave no picture for training or validation"),
        ({"x": pictures(), "y": np.array([{}] * 40)}, {}, "cannot be read: Object arrays cannot be loaded"),
        (
            {"x_train": pictures(), "y_train": np.arange(40) % 4, "x_val": pictures(4), "y_val": np.arange(4) + 2},
            {},
            "has the class '4', which training does not have.",
        ),
        (
            {"x_train": pictures(), "y_train": np.arange(40) % 4, "x_val": pictures(4, (7, 5)), "y_val": np.arange(4)},
            {},
            "The pictures of 'y_val' are uint8 [4, 7, 5], and it has 4 labels.",
        ),
        (
            {
                "x_train": pictures(),
                "y_train": np.arange(40) % 4,
                "x_val": pictures(4, dtype=np.uint16),
                "y_val": [1] * 4,
            },
            {},
            "The pictures of 'y_val' are uint16 [4, 6, 5]",
        ),
        (
            {"x_train": pictures(), "y_train": np.ones((40, 3)), "x_val": pictures(4), "y_val": np.ones((4, 2))},
            {},
            "'y_val' is [4, 2], and in training a label is [3].",
        ),
        ({"x": pictures(), "y": np.array(3)}, {}, "and it has 1 labels"),
        ({"x": pictures(), "y": np.ones(40)}, {}, "All pictures have the class '1'. Give at least 2 classes."),
        ({"x": pictures(), "y": np.array([b"a", b"b"] * 20)}, {}, "[N], as whole numbers or texts, or 0 and 1"),
    ],
)
def test_arrays_that_cannot_work_are_refused(arrays, engine, saved, options, said):
    with pytest.raises(engine("errors").UserError) as caught:
        arrays(saved, **options).split("val")
    assert said in str(caught.value)


@pytest.mark.parametrize(("name", "content"), [("a.npz", b"PK no"), ("a.npy", b"x"), ("nowhere", None)])
def test_files_that_are_no_arrays(engine, tmp_path, name, content):
    engine("rng")
    from digits.data.arrays import Arrays

    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(
        engine("errors").UserError, match=r"cannot be read|must be a folder of \.npy files, or a \.npz file"
    ):
        Arrays(**{**OPTIONS, "path": str(tmp_path / name)})


def test_a_damaged_file_is_named(arrays, engine, tmp_path):
    np.savez_compressed(tmp_path / "c.npz", x=pictures(), y=np.arange(40) % 4)
    content = bytearray((tmp_path / "c.npz").read_bytes())
    content[100:900:10] = bytes(80)
    (tmp_path / "c.npz").write_bytes(content)
    with pytest.raises(engine("errors").UserError, match=r"c\.npz cannot be read: "):
        arrays({}, path=str(tmp_path / "c.npz"))
    with pytest.raises(engine("errors").UserError, match=r"must be a folder of \.npy files"):
        arrays({}, "npy")


def test_an_array_without_its_labels_is_named(arrays):
    with pytest.warns(UserWarning, match="'x_test' is not read: test has no 'y'"):
        data = arrays({"x": pictures(), "y": np.arange(40) % 4, "x_test": pictures(4)})
    assert data.split("test") is None


def test_a_run_learns_from_arrays_and_goes_on(train, server, workspace, tmp_path):
    """Bright or dark: .npz and .npy train alike, with workers and augmentation, and the data may move."""
    from PIL import Image

    draw, y = np.random.default_rng(0), np.arange(200) % 2
    x = (draw.integers(0, 90, (200, 8, 8)) + 160 * y[:, None, None]).astype(np.uint8)
    (workspace / "npy").mkdir()
    np.save(workspace / "npy/x.npy", x)
    np.save(workspace / "npy/y.npy", y)
    np.savez(workspace / "one.npz", x=x, y=y)
    options = ("data=arrays", "model=mlp", "epochs=3", "batch_size=32", "logger=none", "data.shift=1")
    hashes = []
    for path in ("npy", "one.npz"):
        done = train(*options, f"data.path={path}", f"name={path}", "workers=2", "data.augment=[RandomHorizontalFlip]")
        assert done.code == 0, done.out
        hashes.append(result(the_run(workspace, path))["weights_sha256"])
        assert result(the_run(workspace, path))["best"] > 0.95
    assert hashes[0] == hashes[1]
    (workspace / "npy").rename(workspace / "moved")
    done = train(f"resume={the_run(workspace, 'npy')}", "data.path=moved", "epochs=4")
    assert done.code == 0, done.out
    Image.new("L", (8, 8), 230).save(tmp_path / "bright.png")
    said = server.run(
        workspace / "digits/__main__.py", "predict", "runs/npy", str(tmp_path / "bright.png"), cwd=workspace
    )
    assert said.code == 0, said.out
    assert "bright.png,1," in said.out
