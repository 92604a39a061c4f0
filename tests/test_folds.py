"""`data.folds` and `data.fold`: cross-validation on every data set that a starting point brings."""

import json
import shutil
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from helpers import snippets
from helpers.runs import result
from helpers.starting_points import render_point
from PIL import Image

# ---------------------------------------------------------------- which samples a fold holds out


@pytest.mark.parametrize("folds", [2, 3, 5, 11])
@pytest.mark.parametrize("sizes", [(100,), (40, 40, 41), (3, 1, 2, 97, 7), (1,) * 11])
def test_each_sample_is_held_out_once(engine, sizes, folds):
    split = engine("folds").split_by_fold
    classes = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    held = []
    for fold in range(folds):
        train, val = split(classes, folds, fold)
        assert sorted([*train, *val]) == list(range(len(classes)))
        assert all(a < b for part in (train, val) for a, b in pairwise(part)), "sorted"
        held.append(val)
    assert sorted(np.concatenate(held)) == list(range(len(classes)))
    assert max(map(len, held)) - min(map(len, held)) <= 1
    for kind in range(len(sizes)):
        counts = [int((classes[val] == kind).sum()) for val in held]
        assert max(counts) - min(counts) <= 1, "each class too"


def test_folds_are_drawn_by_the_number_of_the_sample_alone(engine):
    """Blocks or every fifth sample would follow the order of a recording."""
    split = engine("folds").split_by_fold
    _, val = split(np.zeros(1000), 5, 2)
    gaps = np.diff(val)
    assert len(set(gaps.tolist())) > 5
    assert 0.3 < (val < 500).mean() < 0.7
    np.testing.assert_array_equal(val, split(np.zeros(1000), 5, 2)[1])
    with pytest.raises(engine("errors").UserError, match=r"data.folds=5 needs as many samples, not 4"):
        split(np.zeros(4), 5, 0)


# ---------------------------------------------------------------- every data set


def write_pictures(folder, test: bool) -> None:
    """Pictures of two classes in train/ and val/, and in test/ if asked for."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 7), ("val", 4), ("test", 3 * test)):
        for kind in ("cat", "dog") if count else ():
            (folder / split / kind).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / kind / f"{split}{number}.png")


def write_flat(folder) -> None:
    """Pictures in cat/ and dog/, and a table of them."""
    write_pictures(folder / "all", False)
    lines = ["path,label"]
    for path in sorted((folder / "all").glob("*/*/*.png")):
        (folder / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, folder / path.parent.name / path.name)
        lines.append(f"{path.parent.name}/{path.name},{path.parent.name}")
    shutil.rmtree(folder / "all")
    (folder / "table.csv").write_text("\n".join(lines))


def write_mnist(folder) -> None:
    raw = folder / "MNIST/raw"
    raw.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for part, count in (("train", 50), ("t10k", 10)):
        pixels, labels = draw.integers(0, 256, count * 784, np.uint8), np.arange(count, dtype=np.uint8) % 10
        head = np.array([0x803, count, 28, 28], ">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = np.array([0x801, count], ">i4").tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())


def write_texts(folder) -> None:
    """Thirty documents, and files of tokens."""
    (folder / "text").mkdir()
    documents = [f"{'word ' * (number % 7)}document {number}" for number in range(30)]
    (folder / "text/a.txt").write_text("\n\n".join(documents))
    (folder / "tokens").mkdir()
    draw = np.random.default_rng(0)
    for name, count in (("train", 400), ("val", 150), ("test", 90)):
        draw.integers(0, 50, count).astype("<u2").tofile(folder / f"tokens/{name}.bin")


def write_masks(folder) -> None:
    draw = np.random.default_rng(0)
    for kind, most in (("images", 256), ("masks", 3)):
        (folder / kind).mkdir(parents=True)
        for number in range(11):
            pixels = draw.integers(0, most, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{number}.png")


STILL = ("data.shift=0", "data.flip=false")

SOURCES = {
    "image_classification": {
        "digits": ("data.shift=0",),
        "synthetic": ("data=synthetic", "data.size=50", "data.shape=[1,4,4]"),
        "image_folder": ("data=image_folder", "data.root=pictures", *STILL),
        "flat": ("data=image_folder", "data.root=flat", "data.test_fraction=0.2", *STILL),
        "table": ("data=picture_table", "data.root=flat", "data.train=flat/table.csv", *STILL),
        "mnist": ("data=mnist", "data.root=mnist", "data.val_size=7", *STILL),
    },
    "regression": {"parabola": ()},
    "dense_prediction": {"moving_textures": ("data.size=20", "data.flip=false")},
    "segmentation": {
        "shapes": ("data.size=20", *STILL),
        "folders": ("data=folders", "data.root=masks", "data.size=8", *STILL),
    },
    "language_model": {
        "stories": ("data.size=40",),
        "text": ("data=text", "data.root=text"),
        "tokens": ("data=tokens", "data.root=tokens", "data.context=8", "data.vocabulary=50"),
    },
}


@pytest.fixture(scope="module")
def started(render, tmp_path_factory):
    """`started(point)`: a project of that starting point, with data of every kind beside it."""
    made = {}

    def started(point: str):
        if point not in made:
            made[point] = folder = render_point(render, tmp_path_factory.mktemp(point) / "p", point)
            snippets.add(folder, "fold_samples.py")
            write_pictures(folder / "pictures", True)
            write_flat(folder / "flat")
            write_mnist(folder / "mnist")
            write_texts(folder)
            write_masks(folder / "masks")
        return made[point]

    return started


@pytest.mark.parametrize(("point", "source"), [(point, name) for point in SOURCES for name in SOURCES[point]])
def test_folds_cut_all_that_is_not_for_the_test(started, server, point, source):
    """Each sample is held out by one fold, prepared as in validation. All others are trained with."""
    done = server.run(started(point) / "fold_samples.py", *SOURCES[point][source])
    assert done.code == 0, done.out
    (line,) = [line for line in done.out.splitlines() if line.startswith("SAMPLES ")]
    whole, *folds = json.loads(line.removeprefix("SAMPLES "))
    everything = Counter(whole["train"] + whole["val"])
    assert sum((Counter(fold["val"]) for fold in folds), Counter()) == everything
    sizes = [len(fold["val"]) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for fold in folds:
        assert Counter(fold["train"]) == everything - Counter(fold["val"])
        assert Counter(fold.get("test")) == Counter(whole.get("test"))
    assert len({tuple(sorted(fold["val"])) for fold in folds}) == 3


def test_a_few_long_texts_are_cut_by_position(started, server):
    """Of each text, the last tenth stays for the test, and folds are neighbours in the rest."""
    project = started("language_model")
    (project / "long").mkdir()
    text = "".join(chr(ord("a") + number % 26) for number in range(3000))
    (project / "long/a.txt").write_text(text)
    done = server.run(project / "fold_samples.py", "data=text", "data.root=long", "data.context=16")
    assert done.code == 0, done.out
    (line,) = [line for line in done.out.splitlines() if line.startswith("SAMPLES ")]
    _, *folds = json.loads(line.removeprefix("SAMPLES "))
    count = {name: [len(fold[name]) for fold in folds] for name in ("train", "val", "test")}
    assert count == {"train": [120, 120, 120], "val": [60, 60, 60], "test": [20, 20, 20]}, "15 bytes each"
    for one, other in pairwise(folds):
        assert one["test"] == other["test"]


def test_training_pictures_are_augmented_and_validated_ones_are_not(engine, project):
    """Of the shifted pictures that train, validation sees the middle."""
    build, data, launch = engine("build.target").build, engine("api").Data, engine("launch")
    for choice in ("digits", "synthetic"):
        made = {
            shift: build(
                launch.compose(
                    f"data={choice}", "data.folds=3", *([f"data.shift={shift}"] * (choice == "digits"))
                ).data,
                "data",
                data,
                (),
            )
            for shift in (0, 2)
        }
        assert (made[2].split("val").canvases == made[0].split("val").canvases).all()
    assert made[2].split("train").shift == (0, 0)


# ---------------------------------------------------------------- a run


def test_folds_are_a_sweep_whose_settings_compete_by_their_means(train, workspace, server):
    grid = ("data.fold=0,1", "data.folds=2", "lr=0.01,0.0001", "max_steps=20", "log.level=error", "name=folds")
    done = train("-m", *grid, "model=mlp", "logger=none")
    assert done.code == 0, done.out
    lines = done.out.splitlines()
    assert [line.split()[:4] for line in lines[-3:-1]] == [["lr=0.01", "2", "of", "2"], ["lr=0.0001", "2", "of", "2"]]
    assert lines[-1].startswith("Best: lr=0.01 with val/acc 0.")
    runs = sorted((workspace / "runs/folds").glob("*/manifest.json"))
    assert len({result(run.parent)["weights_sha256"] for run in runs}) == 4
    evaluated = server.run(workspace / "digits/__main__.py", "evaluate", "runs/folds", cwd=workspace)
    assert evaluated.code == 0, evaluated.out
    assert "is the best run of the setting with the best mean, lr=0.01: val/acc 0." in evaluated.out
    refused = train(f"resume={runs[0].parent}", "data.fold=1")
    assert refused.code == 2
    assert "data cannot change in a resumed run" in refused.last


COUNT = "is not possible. Take at least 2 folds, and count them from 0."


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("data.folds=5 data.fold=5", f"data.fold=5 of data.folds=5 {COUNT}"),
        ("data.folds=5 data.fold=-1", f"data.fold=-1 of data.folds=5 {COUNT}"),
        ("data.folds=1", f"data.fold=0 of data.folds=1 {COUNT}"),
        ("data.fold=2", "data.fold=2 needs the number of folds. Set data.folds=5, too."),
        ("data.fold=0", "data.fold=0 needs the number of folds. Set data.folds=5, too."),
        ("data.folds=5.5", "data.folds=5.5 has the wrong type. .data.digits.Digits expects int | None."),
        ("data.folds=2000", "data.folds=2000 needs as many samples, not 1547. Lower it."),
        ("-m data.folds=3 data.fold=0,3", f"data.fold=3 of data.folds=3 {COUNT} No job was started."),
        (
            "data._target_=.own.Own data.folds=3 ~data.shift",
            ".own.Own does not take data.folds. Let it take `folds` and `fold`, and call `split_by_fold` of "
            "engine/folds.py.",
        ),
    ],
)
def test_folds_that_cannot_be_are_refused(train, workspace, overrides, said):
    digits = workspace / "digits"
    digits.joinpath("own.py").write_text(
        "from .data.digits import Digits\n\n\nclass Own(Digits):\n"
        "    def __init__(self):\n        super().__init__(1)\n"
    )
    done = train(*overrides.split(), "logger=none")
    assert (done.code, done.last.endswith(said)) == (2, True), done.out
    assert not list((workspace / "runs").glob("*/*"))


def test_numbers_of_an_owners_data_set_keep_their_meaning(train, workspace):
    """A project of an earlier release may have such keys."""
    (workspace / "digits/own.py").write_text(
        "from .data.digits import Digits\n\n\nclass Own(Digits):\n    def __init__(self, shift, fold):\n"
        "        assert fold == 7\n        super().__init__(shift)\n"
    )
    done = train("data._target_=.own.Own", "data.fold=7", "max_steps=1", "logger=none")
    assert done.code == 0, done.out
