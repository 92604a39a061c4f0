"""`data=huggingface`: pictures and classes of a data set that `save_to_disk` wrote."""

import io
import sys

import numpy as np
import pytest
import yaml
from helpers.hub import mute_hub
from helpers.runs import result, the_run
from PIL import Image

datasets = pytest.importorskip("datasets", reason="datasets is not installed")
huggingface_hub = pytest.importorskip("huggingface_hub")
datasets.disable_progress_bars()
CLASSES = ["ant", "bee", "cat", "dog"]


@pytest.fixture
def huggingface(engine, project):
    """`huggingface(path, options…)`: the data that configs/data/huggingface.yaml makes of a folder."""
    engine("rng")  # makes `digits` importable
    from digits.data.huggingface import HuggingFace

    options = yaml.safe_load((project / "configs/data/huggingface.yaml").read_text())
    del options["_target_"]
    return lambda path, **changed: HuggingFace(**{**options, "shift": 0.0, "path": str(path), **changed})


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (40, 8, 6, 3), dtype=np.uint8)


def table(pixels, labels, kind=None):
    features = datasets.Features({"note": datasets.Value("string"), "img": datasets.Image(), "kind": kind})
    columns = {"note": ["x"] * len(pixels), "img": [Image.fromarray(one) for one in pixels], "kind": labels}
    return datasets.Dataset.from_dict(columns, features=features)


CLASS = datasets.ClassLabel(names=CLASSES)


def test_each_picture_is_right(huggingface, pixels, tmp_path):
    """Rows without a class do not count. Of each class, a fifth is held out."""
    labels = [-1 if row == 7 else None if row == 8 else row % 4 for row in range(40)]
    table(pixels, labels, CLASS).save_to_disk(tmp_path / "d")
    data, seen = huggingface(tmp_path / "d"), []
    assert data.info == {"shape": (3, 8, 6), "classes": 4, "class_names": CLASSES}
    assert data.split("test") is None
    for name in ("train", "val"):
        split = data.split(name)
        for index, row in enumerate(split.samples.rows.tolist()):
            image, label = split[index]
            np.testing.assert_allclose(image.numpy(), pixels[row].transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)
            assert label == row % 4
            seen.append(row)
    assert sorted(seen) == [row for row in range(40) if row not in (7, 8)]
    assert np.bincount(data.split("val").labels).tolist() == [2, 2, 2, 2]


def test_splits_and_folds(huggingface, pixels, tmp_path):
    whole = table(pixels, [row % 4 for row in range(40)], CLASS)
    parts = {"train": range(24), "validation": range(24, 34), "test": range(34, 40)}
    datasets.DatasetDict({name: whole.select(rows) for name, rows in parts.items()}).save_to_disk(tmp_path / "d")
    data = huggingface(tmp_path / "d")
    for name, rows in zip(("train", "val", "test"), parts.values(), strict=True):
        assert data.split(name).samples.rows.tolist() == list(rows)
    folds = [huggingface(tmp_path / "d", folds=3, fold=fold) for fold in range(3)]
    held = [row for data in folds for row in data.split("val").samples.rows.tolist()]
    assert sorted(held) == list(range(34))
    assert {len(data.split("test")) for data in folds} == {6}


def test_columns_of_other_kinds(huggingface, pixels, tmp_path):
    """Texts and numbers as classes, several classes of a picture, and 16 bits."""
    texts = [CLASSES[row % 4] for row in range(40)]
    table(pixels, texts, datasets.Value("string")).save_to_disk(tmp_path / "texts")
    data = huggingface(tmp_path / "texts", label="kind")
    assert data.info["class_names"] == CLASSES
    split = data.split("train")
    assert [CLASSES[split[index][1]] for index in range(len(split))] == [texts[row] for row in split.samples.rows]
    several = [[kind for kind in range(4) if row >> kind & 1] for row in range(40)]
    table(pixels, several, datasets.Sequence(CLASS)).save_to_disk(tmp_path / "several")
    data = huggingface(tmp_path / "several")
    assert data.info["multi_label"] is True
    split = data.split("train")
    for index, row in enumerate(split.samples.rows):
        assert split[index][1].tolist() == [float(row >> kind & 1) for kind in range(4)]
    deep = np.arange(40 * 48, dtype=np.uint16).reshape(40, 8, 6) * 9
    table(deep, [row % 4 for row in range(40)], CLASS).save_to_disk(tmp_path / "deep")
    data = huggingface(tmp_path / "deep")
    low, high = data.info["range"]
    split = data.split("val")
    for index, row in enumerate(split.samples.rows):
        shares = np.clip((deep[row].astype(np.float64) - low) / (high - low), 0, 1)
        np.testing.assert_allclose(split[index][0].numpy()[0], 2 * shares - 1, atol=1e-5)


def test_a_whole_jpeg_is_cut_as_from_a_file(huggingface, image_folder, tmp_path):
    """The boxes of RandomResizedCrop come from the same pixels as those of a folder."""
    draw = np.random.default_rng(0)
    smooth = [np.kron(draw.integers(0, 256, (5, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(10)]
    rows = []
    for number, picture in enumerate(smooth):
        path = tmp_path / f"pictures/{CLASSES[number % 2]}/{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, quality=90)
        rows.append({"bytes": path.read_bytes(), "path": None})
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=CLASSES[:2])})
    labels = [number % 2 for number in range(10)]
    datasets.Dataset.from_dict({"img": rows, "kind": labels}, features=features).save_to_disk(tmp_path / "d")
    options = {"augment": ["RandomResizedCrop"], "size": 16}
    ours = huggingface(tmp_path / "d", **options).split("train")
    theirs = image_folder(tmp_path / "pictures", **options).split("train")
    numbers = {int(theirs.samples.name(i).split("/")[1].split(".")[0]): i for i in range(len(theirs))}
    keys, compared = np.array([12345], np.uint64), 0
    for index, row in enumerate(ours.samples.rows.tolist()):
        if row in numbers:
            images, _ = ours.batch(np.array([index]), keys)
            same, _ = theirs.batch(np.array([numbers[row]]), keys)
            assert (images == same).all()
            compared += 1
    assert compared > 4


def test_a_broken_picture_has_a_name(huggingface, engine, tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    rows = [{"bytes": file.getvalue() if row != 5 else b"no picture", "path": None} for row in range(9)]
    features = datasets.Features({"img": datasets.Image(), "kind": CLASS})
    datasets.Dataset.from_dict({"img": rows, "kind": [0, 1, 2] * 3}, features=features).save_to_disk(tmp_path / "d")
    with pytest.raises(
        engine("errors").UserError,
        match=rf"picture in row 5 of {tmp_path}/d cannot be read \(cannot identify image file in row 5 of",
    ):
        huggingface(tmp_path / "d")


def test_what_cannot_be_read_is_refused(huggingface, engine, pixels, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    labels = [row % 4 for row in range(40)]
    table(pixels, labels, CLASS).save_to_disk(tmp_path / "d")
    datasets.DatasetDict({"training": table(pixels, labels, CLASS)}).save_to_disk(tmp_path / "training")
    table(pixels, [-1] * 40, CLASS).save_to_disk(tmp_path / "hidden")
    for name, kind in (("order", datasets.ClassLabel(names=CLASSES[::-1])), ("number", datasets.Value("int64"))):
        parts = {"train": table(pixels, labels, CLASS), "validation": table(pixels[:4], labels[:4], kind)}
        datasets.DatasetDict(parts).save_to_disk(tmp_path / name)
    table(pixels, [0.5] * 40, datasets.Value("float32")).save_to_disk(tmp_path / "float")
    table(pixels, ["a"] * 40, datasets.Value("string")).save_to_disk(tmp_path / "alone")
    (tmp_path / "empty").mkdir()
    for options, said in (
        ({"path": tmp_path / "empty"}, "was not written by save_to_disk"),
        ({"path": "nobody/nothing"}, "data.path=nobody/nothing is no folder here: "),
        ({"path": tmp_path / "training"}, "has the splits training, but no 'train'"),
        ({"path": tmp_path / "hidden"}, "The column 'kind' of .* has no classes"),
        ({"path": tmp_path / "order"}, "is of another kind in val than in train"),
        ({"path": tmp_path / "number"}, "is of another kind in val than in train"),
        ({"path": tmp_path / "float", "label": "kind"}, "A label is 0.5. Give whole numbers or texts"),
        ({"path": tmp_path / "alone", "label": "kind"}, "All pictures have the class 'a'. Give at least 2 classes."),
        ({"label": "img"}, "A label is <PIL.* Give whole numbers or texts"),
        ({"label": "no"}, r"data.label=no: the columns are note \(Value\), img \(Image\), kind \(ClassLabel\)"),
        ({"image": "note"}, "data.image=note: the columns are"),
        ({"streaming": True}, "The order of a stream cannot be repeated. Write a part of it to a folder"),
        ({"leave_out": "list.txt"}, "data.leave_out has no meaning for data=huggingface"),
    ):
        with pytest.raises(engine("errors").UserError, match=said):
            huggingface(**{"path": tmp_path / "d", **options})
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        engine("errors").UserError, match=r"data=huggingface needs datasets\. Install it: uv add datasets"
    ):
        huggingface(tmp_path / "d")


def test_a_run_repeats_and_moves(train, server, workspace, tmp_path):
    """With loader workers and without: the same bits. The folder may move; a run of it predicts pictures."""
    draw, labels = np.random.default_rng(0), [row % 2 for row in range(120)]
    bright = np.array(labels)[:, None, None, None] * 150
    table((draw.integers(0, 100, (120, 8, 6, 3)) + bright).astype(np.uint8), labels, CLASS).save_to_disk(
        workspace / "d"
    )
    options = ("data=huggingface", "model=mlp", "epochs=3", "batch_size=16", "logger=none", "data.flip=true")
    hashes = []
    for workers in ("0", "2"):
        done = train(*options, "data.path=d", f"name=w{workers}", f"workers={workers}")
        assert done.code == 0, done.out
        hashes.append(result(the_run(workspace, f"w{workers}"))["weights_sha256"])
    assert hashes[0] == hashes[1]
    assert result(the_run(workspace, "w0"))["best"] > 0.95
    (workspace / "d").rename(workspace / "moved")
    done = train(f"resume={the_run(workspace, 'w0')}", "data.path=moved", "epochs=4")
    assert done.code == 0, done.out
    Image.new("RGB", (6, 8), (230, 230, 230)).save(tmp_path / "bright.png")
    said = server.run(
        workspace / "digits/__main__.py", "predict", "runs/w2", str(tmp_path / "bright.png"), cwd=workspace
    )
    assert said.code == 0, said.out
    assert "bright.png,bee," in said.out


@pytest.mark.parametrize("way", ["HF_ENDPOINT", "https_proxy"])
def test_a_hub_that_does_not_answer_is_asked_once(train, workspace, tmp_path, way):
    """huggingface_hub would try six times, which takes half a minute."""
    with mute_hub() as (address, calls):
        done = train("data=huggingface", "data.path=nobody/nothing", HF_HOME=str(tmp_path / "hf"), **{way: address})
    assert done.code == 2, done.out
    assert done.out.count("\n") == 1, done.out
    assert "data.path=nobody/nothing is no folder here: the Hub does not answer. Name a folder" in done.out
    assert 1 <= len(calls) <= 2  # httpx repeats a request whose connection was lost
    assert not (workspace / "runs").exists()
