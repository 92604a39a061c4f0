"""Pictures of more than 8 bits keep their levels, in one range for the whole data set."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image

DRAW = np.random.default_rng(0)


def write(root, kinds, ending):
    """Save arrays [H, W] as pictures in two classes."""
    for number, values in enumerate(kinds):
        folder = root / ("even", "odd")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / f"{number:02}.{ending}")
    return root


KINDS = {
    "12 bits in a 16-bit PNG": (lambda: DRAW.integers(0, 4096, (9, 8), dtype=np.uint16), "png"),
    "10 bits in a TIFF": (lambda: DRAW.integers(0, 1024, (9, 8), dtype=np.uint16), "tif"),
    "signed 32 bits": (lambda: DRAW.integers(-1000, 3000, (9, 8), dtype=np.int32), "tif"),
    "floats": (lambda: DRAW.normal(0, 1e-3, (9, 8)).astype(np.float32), "tif"),
    "large floats": (lambda: DRAW.uniform(-1024, 3071, (9, 8)).astype(np.float32), "tif"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_memory", [False, True])
def test_values_are_right_to_the_last_bit_of_a_float(image_folder, tmp_path, kind, in_memory):
    make, ending = KINDS[kind]
    arrays = [make() for _ in range(20)]
    root = write(tmp_path / "deep", arrays, ending)
    data = image_folder(root, in_memory=in_memory, size=[9, 8], mean=0.0, std=1.0)
    train = image_folder(root).split("train").samples
    named = {f"{number:02}.{ending}": values.astype(np.float64) for number, values in enumerate(arrays)}
    own = [named[path.rpartition("/")[2]] for path in train]
    low, high = min(a.min() for a in own), max(a.max() for a in own)
    assert data.info["range"] == [low, high]
    images, _ = data.split("train").batch(np.arange(len(own)), np.zeros(len(own), np.uint64))
    assert images.dtype == torch.float32
    expected = np.stack([(values - low) / (high - low) for values in own])[:, None]
    assert np.abs(images.double().numpy() - expected).max() < 3e-7
    assert len(np.unique(images.numpy())) > 0.9 * len(np.unique(np.stack(own)))


def test_unsigned_32_bits(engine, image_folder, tmp_path):
    """Pillow takes them for signed numbers, also when it writes the tag that tells them apart."""
    signed, unsigned = (struct.pack("<HHIHH", 339, 3, 1, kind, 0) for kind in (2, 1))
    for name, values in {"a": [0, 1 << 31], "b": [3 << 30, (1 << 32) - 1]}.items():
        (tmp_path / name).mkdir()
        for number in range(3):
            path = tmp_path / name / f"{number}.tif"
            Image.fromarray(np.array([values], np.uint32).view(np.int32)).save(path)
            assert path.read_bytes().count(signed) == 1
            path.write_bytes(path.read_bytes().replace(signed, unsigned))
    assert engine("datasets.pictures").extent(str(tmp_path / "b/0.tif")) == (3 << 30, (1 << 32) - 1)
    data = image_folder(tmp_path, size=[1, 2], mean=0.0, std=1.0)
    assert data.info["range"] == [0, (1 << 32) - 1]
    assert sorted(image.flatten().tolist() for image, _ in data.split("val"))[1] == pytest.approx([0.75, 1.0])


def test_a_range_may_be_given_and_values_outside_are_cut(image_folder, tmp_path):
    values = np.array([[0, 100, 200, 300, 65535]], np.uint16)
    data = image_folder(write(tmp_path, [values] * 4, "png"), range=[100, 300], size=[1, 5], mean=0.0, std=1.0)
    assert data.info["range"] == [100.0, 300.0]
    assert data.split("val")[0][0].flatten().tolist() == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-7)


def test_missing_values_are_the_darkest(image_folder, tmp_path):
    values = np.array([[np.nan, -2, 0, 2, np.inf]], np.float32)
    data = image_folder(write(tmp_path, [values] * 4, "tif"), size=[1, 5], mean=0.0, std=1.0)
    assert data.info["range"] == [-2.0, 2.0]
    assert data.split("val")[0][0].flatten().tolist() == [0, 0, 0.5, 1, 1]


def test_a_range_that_pictures_hardly_use_is_told(image_folder, tmp_path, told):
    dark = [DRAW.integers(0, 4096, (4, 4), dtype=np.uint16) for _ in range(6)]
    image_folder(write(tmp_path, dark, "png"), range=[0, 65535])
    assert any("less than an eighth of data.range=[0,65535]" in text for text in told)
    told.clear()
    image_folder(tmp_path)
    assert not any("eighth" in text for text in told)


def test_pictures_of_8_bits_have_no_range(image_folder, pets):
    assert "range" not in image_folder(pets()).info
    assert image_folder(pets()).split("train").dtype == np.uint8


@pytest.mark.parametrize(
    ("wanted", "named"),
    [([3, 1], "must be"), ([1], "must be"), ("full", "must be"), ([0, 255], "pictures have only 8 bits")],
)
def test_ranges_that_cannot_be_meant(engine, image_folder, pets, wanted, named):
    with pytest.raises(engine("errors").UserError, match=named):
        image_folder(pets(), range=wanted)


def test_a_run_with_the_range_of_its_checkpoint(train, workspace, server, tmp_path):
    """`predict` scales as the training did, also without the training pictures."""
    bright = [np.full((8, 8), value, np.uint16) for value in (500, 3500) * 10]
    root = write(tmp_path / "deep", bright, "png")
    options = ("data=image_folder", f"data.root={root}", "model=mlp", "batch_size=8", "epochs=12", "lr=0.01")
    done = train(*options, "logger=none", "workers=0")
    assert done.code == 0, done.out
    root.rename(tmp_path / "away")
    (run,) = (workspace / "runs/default").iterdir()
    paths = [str(tmp_path / "away" / name) for name in ("even/00.png", "odd/01.png")]
    done = server.run(workspace / "digits/__main__.py", "predict", str(run), *paths, cwd=workspace)
    assert done.code == 0, done.out
    assert [line.split(",")[1] for line in done.out.splitlines()[1:]] == ["even", "odd"]


def test_a_run_of_an_older_release_reads_as_it_did(engine, image_folder, tmp_path):
    """Without these keys, 65535 is white, and pixels are bytes."""
    root = write(tmp_path, [np.full((4, 4), 32768, np.uint16)] * 4, "png")
    data = image_folder(root, range=None, skip=None, background=None, mean=0.0, std=1.0)
    assert "range" not in data.info
    assert torch.equal(data.split("val")[0][0], torch.full((1, 4, 4), 127.0) * (1 / torch.tensor(255.0)))
