"""The starting point `segmentation` with your own pictures and masks."""

import csv
import importlib
import sys
from itertools import chain

import numpy as np
import pytest
import torch
from helpers.starting_points import point_fixture
from PIL import Image

point = point_fixture("segmentation", "data=folders", "data.size=[24,32]", "epochs=2", "batch_size=4", "model.depth=2")
DRAW = np.random.default_rng(0)


@pytest.fixture
def module(point, monkeypatch):
    """`module(name)`: a module of the project, as a package of its own name."""
    monkeypatch.syspath_prepend(str(point.project.parent))
    name = point.project.name
    yield lambda part: importlib.import_module(f"{name}.digits.{part}")
    for key in [key for key in sys.modules if key.split(".")[0] == name]:
        del sys.modules[key]


def save_mask(path, numbers, mode):
    image = Image.fromarray(numbers.astype(np.int32 if mode == "I" else np.uint8))
    if mode == "P":
        image = image.convert("L")
        image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0] + [255] * 759)
    image.save(path)


def write(root, count=12, mode="L", scale=1, ignored=255, ending="png", size=(30, 50)):
    """Pictures whose left half is dark and of class 1, whose right half is bright and of class 2, with an
    ignored line between them, in a frame of class 0."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    height, width = size
    for number in range(count):
        middle = width // 2 + number % 5
        pixels = np.full((height, width, 3), 220, np.uint8)
        pixels[:, :middle] = 40
        pixels[:3] = 128
        numbers = np.full((height, width), 2)
        numbers[:, :middle] = 1
        numbers[:3] = 0
        numbers[:, middle - 1 : middle + 1] = ignored
        noise = DRAW.integers(-9, 9, pixels.shape)
        Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(root / f"images/{number}.jpg", quality=95)
        save_mask(root / f"masks/{number}.{ending}", numbers[::scale, ::scale], mode)
    return root


@pytest.mark.parametrize(
    ("mode", "ending", "ignored", "scale"), [("L", "png", 255, 1), ("P", "png", 255, 2), ("I", "tif", -1, 1)]
)
def test_masks_are_read_right(module, tmp_path, mode, ending, ignored, scale):
    root = write(tmp_path / "data", mode=mode, ending=ending, ignored=ignored, scale=scale)
    data = module("data.folders").Folders(str(root), [24, 40], 255, None, 0.25, 0, False)
    assert data.info == {"shape": (3, 24, 40), "classes": 3, "class_names": ["0", "1", "2"]}
    train, val = data.split("train"), data.split("val")
    assert (len(train), len(val), data.split("test")) == (9, 3, None)
    for image, mask in val:
        assert image.shape == (3, 24, 40)
        assert set(mask.unique().tolist()) == {-1, 0, 1, 2}, "no class between two others comes up"
        pixels = image.mean(dim=0)
        assert pixels[mask == 1].mean() < -1 < 1 < pixels[mask == 2].mean()
    again = module("data.folders").Folders(str(root), [24, 40], 255, None, 0.25, 0, False)
    assert again.split("val").pairs == val.pairs
    assert again.fingerprint() == data.fingerprint()


def test_masks_are_read_at_the_start_only_if_no_names_are_given(module, tmp_path, monkeypatch):
    root, folders = write(tmp_path / "data"), module("data.folders")
    read = []
    monkeypatch.setattr(folders, "opened", read.append)
    names = ["frame", "left", "right"]
    data = folders.Folders(str(root), 24, 255, names, 0.25, 0, False)
    assert data.info["class_names"] == names
    assert len(data.split("train")) == 9
    assert read == []


def test_home_is_found(module, tmp_path, monkeypatch):
    write(tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(module("data.folders").Folders("~/data", 24, 255, None, 0.25, 0, False).split("train")) == 9


def test_a_turned_picture_fits_its_mask(module, tmp_path):
    """The mask has the sides that the camera means, in any format that can say so. PNG tells it without decoding."""
    for ending in ("jpg", "png", "webp"):
        root = tmp_path / ending
        (root / "images").mkdir(parents=True)
        (root / "masks").mkdir()
        exif = Image.Exif()
        exif[0x0112] = 6
        for number in range(2):
            Image.new("RGB", (60, 40), (200, 90, 20)).save(root / f"images/{number}.{ending}", exif=exif)
            save_mask(root / f"masks/{number}.png", np.ones((30, 20)), "L")
        data = module("data.folders").Folders(str(root), [30, 30], 255, None, 0.5, 0, False)
        _, mask = data.split("val")[0]
        assert (mask == 1).sum() == 30 * 20, ending
        _, _, size = data.files([str(root / f"images/0.{ending}")])[0]
        assert size.tolist() == [60, 40]


def test_all_levels_and_the_background_of_pictures(module, tmp_path):
    """Scans of 12 bits have one range in training, and transparent pixels the colour of the config."""
    root = write(tmp_path / "data", size=(24, 32))
    values = {str(n): DRAW.integers(100, 4000, (24, 32)).astype(np.uint16) for n in range(12)}
    for number, pixels in values.items():
        (root / f"images/{number}.jpg").unlink()
        Image.fromarray(pixels).save(root / f"images/{number}.png")
    options = (str(root), [24, 32], 255, None, 0.2, 0, False)
    data = module("data.folders").Folders(*options, range="auto")
    train = data.split("train")
    own = {path: values[path.rpartition("/")[2].removesuffix(".png")].astype(float) for path, _ in train.pairs}
    low, high = (float(extreme(list(own.values()))) for extreme in (np.min, np.max))
    assert data.info["range"] == [low, high]
    for index, pixels in enumerate(own.values()):
        shown = 64 * train[index][0].double().numpy() + 127.5
        np.testing.assert_allclose(shown, np.stack([255 * (pixels - low) / (high - low)] * 3), atol=1e-4)
    later = module("data.folders").Folders("/nowhere", *options[1:], info=data.info)
    assert torch.equal(later.files([train.pairs[0][0]])[0][0], train[0][0])
    clear = np.zeros((24, 32, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    data = module("data.folders").Folders("/nowhere", *options[1:], background="#ff0080", info=data.info)
    assert (64 * data.files([str(tmp_path / "clear.png")])[0][0][:, 0, 0] + 127.5).tolist() == [255, 0, 128]


def test_masks_may_be_rounded_by_a_pixel(module, tmp_path):
    """Half of 31 rows are 15 or 16, and both are fine. A square mask of a wide picture is not."""
    root = write(tmp_path / "data", size=(31, 51))
    folders = module("data.folders")
    for shape in ((15, 25), (16, 26), (15, 26), (16, 25), (62, 102)):
        save_mask(root / "masks/3.png", np.ones(shape), "L")
        data = folders.Folders(str(root), [31, 51], 255, ["a", "b", "c"], 0.25, 0, False)
        sets = [data.split(name) for name in ("train", "val")]
        assert len(list(chain(*sets))) == 12
    save_mask(root / "masks/3.png", np.ones((31, 31)), "L")
    with pytest.raises(module("engine.errors").UserError, match="31×31 pixels, but its picture 31×51"):
        list(chain(*sets))


def test_a_broken_mask_is_listed(point, tmp_path):
    root = write(tmp_path / "data")
    (root / "masks/3.png").write_bytes(b"no picture")
    done = point.tool("check-data", "data=folders", f"data.root={root}", "workers=0", "--out", tmp_path / "broken.txt")
    assert done.code == 1, done.out
    assert "3.png cannot be read" in done.out or "cannot identify" in done.out
    assert len((tmp_path / "broken.txt").read_text().splitlines()) == 1


def test_a_picture_and_its_mask_are_augmented_alike(module, tmp_path):
    root = write(tmp_path / "data")
    data = module("data.folders").Folders(str(root), [30, 50], 255, None, 0.25, 6, True)
    train, seen = data.split("train"), set()
    for seed in range(40):
        torch.manual_seed(seed)
        image, mask = train[seed % len(train)]
        pixels = image.mean(dim=0)
        inside = pixels > -1.9  # what comes in from outside is black and counts nowhere
        assert ((mask == 1) & (pixels > -0.5)).sum() == ((mask == 2) & (pixels < 0.5)).sum() == 0
        assert (mask[~inside] <= 1).all()
        seen.add(tuple(mask.flatten().tolist()))
    assert len(seen) > 35


def test_ignored_pixels_count_nowhere(module):
    losses, metrics = module("losses"), module("metrics")
    logits = torch.randn(3, 4, 6, 5, requires_grad=True)
    masks = torch.randint(0, 4, (3, 6, 5))
    masks[:, 2:4] = -1
    kept = torch.cat([logits[:, :, :2], logits[:, :, 4:]], dim=2)
    own = torch.cat([masks[:, :2], masks[:, 4:]], dim=1)
    assert torch.allclose(losses.PixelCrossEntropy()(logits, masks), torch.nn.functional.cross_entropy(kept, own))
    assert torch.allclose(losses.Dice()(logits, masks), losses.Dice()(kept, own))
    value, n = metrics.pixel_accuracy(logits, masks)
    assert n == 60
    assert torch.isclose(value, (kept.argmax(1) == own).float().mean())
    for loss in (losses.PixelCrossEntropy(), losses.Dice()):
        loss(logits, masks).backward()
        assert logits.grad[:, :, 2:4].abs().max() == 0
        assert torch.isfinite(loss(logits, torch.full_like(masks, -1)))


def test_training_and_masks_as_files(point, tmp_path):
    root = write(tmp_path / "data", count=20)
    options = ("data.size=[24,32]", "data.shift=2", "model.depth=2", "epochs=40", "batch_size=4", "workers=0")
    done = point.train("data=folders", f"data.root={root}", *options, "name=own")
    assert done.code == 0, done.out
    done = point.tool("evaluate", point.run("own"))
    assert done.code == 0, done.out
    assert float(done.out.split("val/miou")[1].split()[0]) > 0.8, done.out
    out = tmp_path / "said/them.csv"
    out.parent.mkdir()
    done = point.tool("predict", point.run("own"), root / "images", "--out", out)
    assert done.code == 0, done.out
    for row in csv.DictReader(out.open()):
        with Image.open(row["mask"]) as file:
            said = np.array(file)
        stem = row["path"].rpartition("/")[2].removesuffix(".jpg")
        assert row["mask"].endswith(f"{stem}_mask.png")
        truth = np.array(Image.open(root / f"masks/{stem}.png"))
        assert said.shape == truth.shape == (30, 50), "of the size of the picture"
        assert (said == truth)[truth != 255].mean() > 0.9
    done = point.tool("predict", point.run("own"), root / "images/0.jpg")
    assert done.code == 0
    assert "mask" not in done.out.splitlines()[0], "without --out there is no place for them"
    (tmp_path / "test-only").mkdir()
    root.rename(tmp_path / "test-only/test")  # the test needs no training data, an export none at all
    done = point.tool("evaluate", point.run("own"), f"data.root={tmp_path / 'test-only'}", "--split", "test")
    assert done.code == 0, done.out
    assert "20 of 20 samples of the test split" in done.out
    done = point.tool("export", point.run("own"), "--format", "safetensors")
    assert done.code == 0, done.out


def test_mistakes_are_one_sentence(point, tmp_path):
    root = write(tmp_path / "data")

    def refused(sentence, *overrides):
        done = point.train("data=folders", f"data.root={root}", "batch_size=2", *overrides)
        assert (done.code, done.out.count("\n")) == (2, 1), done.out
        assert sentence in done.last, done.last

    refused("data.size=", "data.size=[1,2,3]")
    refused("has class 2, but there are 2 classes from 0. Name all", "data.class_names=[a,b]")
    (root / "masks/3.png").rename(root / "masks/x.png")
    refused("3.jpg has no mask")
    (root / "masks/x.png").unlink()
    Image.new("RGB", (50, 30)).save(root / "masks/3.png")
    refused("3.png has colours (RGB)")
    for path in (root / "masks").iterdir():
        save_mask(path, 255 * (np.indices((30, 50)).sum(0) % 2), "L")
    refused("no class besides 0. The number 255 is none (data.ignored). Save class numbers")
    (root / "masks").rename(root / "labels")
    refused("masks does not exist")
