"""How many boxes of photographs one core scales in a second, and how true they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from .common import Table, project, temporary
from .reading import BATCH, endless, our_batches, rows

SIZE = 224
HALF = [0.5] * 3


def table(quick: bool) -> Table:
    project()
    import timm
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    root, cache = _photographs(BATCH if quick else 4 * BATCH), temporary()
    crop = [v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip()]
    plain = v2.Compose([*crop, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(HALF, HALF)])
    overrides = ("data=image_folder", f"data.root={root}", f"data.size={SIZE}", "data.channels=3", "data.flip=true")
    overrides = (*overrides, "data.augment=[RandomResizedCrop]")
    options = {"batch_size": BATCH, "shuffle": True, "drop_last": True}
    base, loader = "DataLoader, torchvision's ImageFolder and `transforms.v2`", f"timm {timm.__version__}'s loader"
    paths, reading = sorted(map(str, root.glob("train/*/*.jpg"))), our_batches(*overrides, f"data.cache={cache}")
    boxes, kind = Boxes(paths), "a cache like ffcv's: bytes in a memory map, boxes scaled with "
    contestants = {
        base: endless(DataLoader(ImageFolder(root / "train", plain), **options)),
        loader: endless(_of_timm(timm, root)),
        "ours, `data.augment=[RandomResizedCrop]`": our_batches(*overrides),
        kind + boxes.tool: endless(DataLoader(boxes, **options)),
        "ours, `data.cache=PATH`": reading,
    }
    next(reading)  # it writes the cache
    quality = dict(zip(contestants, _fidelity(paths, boxes), strict=True))
    return rows(
        f"A folder of {len(paths)} JPEG files of 500×375: a random box scaled to {SIZE}×{SIZE}, mirrored or not",
        "One process, one thread. PSNR compares equal boxes with those of the first row. Caches hold pictures whose "
        "shorter side is 256, as bytes. They are made once, before the measurement. ffcv itself needs OpenCV and "
        "libjpeg-turbo of the system to be built; a data set of its kind stands for it.",
        contestants,
        dict.fromkeys(contestants, 1 if quick else 2),
        3 if quick else 10,
        base,
        ("PSNR", quality),
    )


def _photographs(size: int) -> Path:
    """Write cuts of two photographs, as JPEG files of two classes."""
    from sklearn.datasets import load_sample_images

    root, draw = temporary(), np.random.default_rng(0)
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    for split, number in [("train", n) for n in range(size)] + [("val", n) for n in range(4)]:
        folder = root / split / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        image = photographs[number % 2]
        left, top = draw.integers(image.width - 500), draw.integers(image.height - 375)
        image.crop((left, top, left + 500, top + 375)).save(folder / f"{number}.jpg", quality=85)
    return root


def _of_timm(timm: Any, root: Path) -> Any:
    dataset = timm.data.create_dataset("", str(root / "train"))
    return timm.data.create_loader(
        dataset,
        *((3, SIZE, SIZE), BATCH),
        is_training=True,
        use_prefetcher=False,
        color_jitter=None,
        interpolation="bilinear",
        num_workers=0,
        persistent_workers=False,
        mean=HALF,
        std=HALF,
    )


class Boxes(Dataset):
    """Pictures of shorter side 256 in a memory map. ffcv decodes and scales with OpenCV; else Pillow does."""

    def __init__(self, paths: list[str]) -> None:
        images = []
        for path in paths:
            image = Image.open(path)
            scale = 256 / min(image.size)
            images.append(np.asarray(image.resize([round(scale * n) for n in image.size], Image.Resampling.BILINEAR)))
        file = temporary() / "pixels.npy"
        np.save(file, np.stack(images))
        self.pixels = np.load(file, mmap_mode="r")
        try:
            import cv2

            cv2.setNumThreads(1)
            self.tool = f"OpenCV {cv2.__version__}"
            self.scaled = lambda box: cv2.resize(box, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        except ImportError:
            self.tool = "Pillow"
            self.scaled = lambda box: np.asarray(Image.fromarray(box).resize((SIZE, SIZE), Image.Resampling.BILINEAR))

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from torchvision.transforms import v2

        picture = self.pixels[index]
        box = torch.empty(3, *picture.shape[:2], device="meta")
        top, left, height, width = v2.RandomResizedCrop(SIZE).make_params([box]).values()
        image = self.scaled(picture[top : top + height, left : left + width])
        image = image[:, ::-1] if torch.rand(()) < 0.5 else image
        values = (image.transpose(2, 0, 1).astype(np.float32) - np.float32(127.5)) * np.float32(1 / 127.5)
        return torch.from_numpy(values), 0


def _fidelity(paths: list[str], boxes: Boxes) -> Iterator[str]:
    """Yield for each contestant the PSNR of its boxes, against those of Pillow and torchvision."""
    from digits.engine.datasets.augment import in_own_size
    from digits.engine.datasets.cache import decoded
    from digits.engine.datasets.pictures import PLAIN
    from torchvision.transforms import v2

    draw = np.random.default_rng(1)
    sides = draw.uniform(0.3, 1, (40, 2))
    corners = draw.uniform(0, 1 - sides)

    def cut(height: int, width: int, number: int) -> tuple[int, int, int, int]:
        begin, end = corners[number] * (height, width), (corners[number] + sides[number]) * (height, width)
        (top, left), (bottom, right) = begin.round().astype(int).tolist(), end.round().astype(int).tolist()
        return top, left, bottom - top, right - left

    def by_pillow(number: int) -> np.ndarray:
        image = Image.open(paths[number]).convert("RGB")
        box = cut(image.height, image.width, number)
        return np.asarray(v2.functional.resized_crop(image, *box, [SIZE, SIZE]))

    def by_torch(picture: torch.Tensor, number: int) -> np.ndarray:
        box = cut(*picture.shape[1:], number)
        return v2.functional.resized_crop(picture, *box, [SIZE, SIZE]).permute(1, 2, 0).numpy()

    def by_boxes(number: int) -> np.ndarray:
        picture = boxes.pixels[number]
        top, left, height, width = cut(*picture.shape[:2], number)
        return boxes.scaled(picture[top : top + height, left : left + width])

    def cached(number: int) -> np.ndarray:
        return by_torch(torch.from_numpy(decoded(3, PLAIN, 256, paths[number]).copy()).permute(2, 0, 1), number)

    yield from ("", "equal")
    for made in (lambda number: by_torch(in_own_size(paths[number], 3, PLAIN), number), by_boxes, cached):
        errors = [np.square(made(n).astype(float) - by_pillow(n)).mean() for n in range(len(sides))]
        values = 10 * np.log10(255**2 / np.maximum(errors, 1e-9))
        yield f"{values.mean():.0f} dB (worst {values.min():.0f})"
