"""`data.augment`: torchvision's transforms, keyed by sample, on whole pictures where they cut a box."""

import json

import numpy as np
import pytest
import torch
from helpers.runs import result, the_run
from PIL import Image, ImageOps

pytest.importorskip("torchvision")
from torchvision.transforms import v2

KEYS = np.arange(1, 7, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def by_hand(engine, steps, path: str, key: int, channels: int = 3) -> torch.Tensor:
    """What torchvision makes of the picture, opened with Pillow as its camera says."""
    rng = engine("rng")
    image = ImageOps.exif_transpose(Image.open(path)).convert("L" if channels == 1 else "RGB")
    rng.seed_all(rng.fold_in(key, rng.Domain.SAMPLE))
    return v2.Compose(steps)(v2.functional.pil_to_tensor(image))


def test_a_box_of_the_whole_picture_is_scaled_as_torchvision_does(engine, image_folder, photos):
    data = image_folder(photos, size=[16, 24], channels=3, mean=0.0, std=1 / 255, augment=["RandomResizedCrop"])
    train = data.split("train")
    indices = np.arange(min(len(train), len(KEYS)))
    images, _ = train.batch(indices, KEYS[: len(indices)])
    formats = set()
    for index, image, key in zip(indices, images, KEYS.tolist(), strict=False):
        path = train.samples[index]
        formats.add(path[-5:])
        right = by_hand(engine, [v2.RandomResizedCrop([16, 24])], path, key).float()
        assert (image - right).abs().max() <= 1, path  # decoders may differ by one
        assert (image - right).abs().mean() < 0.02, path
    assert len(formats) >= 3


@pytest.mark.parametrize("channels", [1, 3])
def test_whole_pictures_equal_pillows(engine, photos, channels):
    pictures, augment = engine("datasets.pictures"), engine("datasets.augment")
    for path in sorted(photos.glob("a/*")):
        with Image.open(path) as file:
            mode = "L" if channels == 1 else "RGB"
            turned = file.getexif().get(0x0112, 1) == 6
            if file.format == "JPEG" and not turned:
                file.draft(mode, file.size)  # the grey of the file itself
            right = np.asarray((file.rotate(-90, expand=True) if turned else file).convert(mode))
        found = augment.in_own_size(str(path), channels, pictures.PLAIN)
        assert found.dtype == torch.uint8
        right = right.reshape(*right.shape[:2], -1).transpose(2, 0, 1).astype(int)
        assert np.abs(found.numpy().astype(int) - right).max() <= 1, path


def test_several_transforms_and_the_mirror(engine, image_folder, photos):
    steps = ["TrivialAugmentWide", {"ColorJitter": {"brightness": 0.5}}, {"RandomErasing": {"p": 1.0}}]
    changed, plain = (
        image_folder(photos, size=20, channels=3, mean=0.0, std=1 / 255, augment=augment).split("train")
        for augment in (steps, None)
    )
    indices, rng = np.arange(6), engine("rng")
    images, labels = changed.batch(indices, KEYS)
    inputs, same = plain.batch(indices, KEYS)
    assert torch.equal(labels, same)
    compose = v2.Compose([v2.TrivialAugmentWide(), v2.ColorJitter(brightness=0.5), v2.RandomErasing(p=1.0)])
    for image, before, key in zip(images, inputs, KEYS.tolist(), strict=True):
        rng.seed_all(rng.fold_in(key, rng.Domain.SAMPLE))
        assert torch.equal(image, compose(before.round().to(torch.uint8)).float())
    alone = torch.cat([changed.batch(indices[[n]], KEYS[[n]])[0] for n in range(6)])
    assert torch.equal(alone, images), "a sample does not depend on its batch"
    # Validation pictures stay as they are.
    assert image_folder(photos, size=20, channels=3, augment=steps).split("val").augment is None


def test_a_run_repeats_with_any_workers_and_resumes(train, workspace, photos):
    base = (
        "data=image_folder", f"data.root={photos}", "data.size=16", "batch_size=2", "epochs=3", "model=mlp",
        "data.augment=[RandomResizedCrop,RandomHorizontalFlip,{RandomErasing: {p: 0.5}}]", "logger=none",
        "log.curves=false", "save_every_steps=1", "keep_last=null",
    )  # fmt: skip
    hashes = set()
    for workers in (0, 2):
        assert train(*base, f"workers={workers}", f"name=w{workers}").code == 0
        hashes.add(result(the_run(workspace, f"w{workers}"))["weights_sha256"])
    run = the_run(workspace, "w0")
    for path in (run / "checkpoints").glob("*.pt"):
        if path.name > "step-00000005.pt":
            path.unlink()
    (run / "checkpoints/best.pt").unlink(missing_ok=True)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["status"] = "running"
    manifest.pop("result", None)
    (run / "manifest.json").write_text(json.dumps(manifest))
    done = train(f"resume={run}")
    assert done.code == 0, done.out
    hashes.add(result(run)["weights_sha256"])
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("augment", "said"),
    [
        ("[TrivialAugmentWild]", "has no transform 'TrivialAugmentWild'. Did you mean 'TrivialAugmentWide'?"),
        ("RandomErasing", "data.augment='RandomErasing' has the wrong type"),
        ("[{RandomErasing: {prob: 0.5}}]", "RandomErasing cannot be made"),
        ("[{Resize: {size: 7}}]", "data.augment turns torch.uint8"),
        ("[Grayscale,{ToDtype: {dtype: float}}]", "data.augment"),
        ("[3]", "has no transform '3'"),
        ("[{RandomErasing: null, p: 0.25}]", "has no transform"),
        ("[{RandomErasing: 0.25}]", "RandomErasing cannot be made"),
    ],
)
def test_mistakes(train, workspace, photos, augment, said):
    base = ("data=image_folder", f"data.root={photos}", "data.size=16", "batch_size=2", "name=wrong", "max_steps=1")
    done = train(*base, f"data.augment={augment}")
    assert done.code == 2, done.out
    assert said in done.last
    assert not (workspace / "runs/wrong").exists()


def test_boxes_need_whole_pictures(train, workspace, photos):
    base = ("data=image_folder", f"data.root={photos}", "data.size=16", "batch_size=2", "name=wrong", "max_steps=1")
    done = train(*base, "data.augment=[RandomResizedCrop]", "data.in_memory=true")
    assert done.code == 2, done.out
    assert "Set data.in_memory=false." in done.last


def test_it_is_not_for_data_on_the_device(engine, image_folder, photos):
    images = image_folder(photos, size=16, in_memory=True, augment=["TrivialAugmentWide"]).split("train")
    with pytest.raises(engine("errors").UserError, match="data_on_device=false"):
        images.to(torch.device("cpu"))
