"""How many pictures one core reads, augments and joins into batches in a second."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from . import photos
from .common import Table, project, temporary
from .reading import BATCH, endless, our_batches, rows


def run(options: argparse.Namespace) -> Iterator[Table]:
    yield _arrays(options.quick)
    yield _folder(options.quick)
    yield photos.table(options.quick)


class Samples(Dataset):
    """Samples that pass torchvision's transforms one by one, as in its tutorials."""

    def __init__(self, images: list[Any], labels: list[int], transform: Callable[[Any], Any]) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.images[index]), self.labels[index]


def _arrays(quick: bool) -> Table:
    project()
    from PIL import Image
    from torchvision import transforms
    from torchvision.transforms import v2

    from .peers.pictures import MEAN, SHIFT, STD, draw

    size = 2_000 if quick else 50_000
    images, labels = draw(size)
    random = [v2.RandomCrop(32, padding=SHIFT), v2.RandomHorizontalFlip()]
    normalize = v2.Normalize(MEAN, STD)
    pils, tensors = [Image.fromarray(image) for image in images], list(torch.from_numpy(images).permute(0, 3, 1, 2))
    from_tensors = v2.Compose([*random, v2.ToDtype(torch.float32, scale=True), normalize])
    from_pils = transforms.Compose(
        [
            *(transforms.RandomCrop(32, padding=SHIFT), transforms.RandomHorizontalFlip()),
            *(transforms.ToTensor(), transforms.Normalize(MEAN, STD)),
        ]
    )

    def loader(samples: list[Any], transform: Callable[[Any], Any]) -> Iterator[Any]:
        dataset = Samples(samples, labels.tolist(), transform)
        return endless(DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True))

    base = "DataLoader, torchvision's transforms of each PIL picture"
    ours = "ours"
    contestants = {
        base: loader(pils, from_pils),
        "DataLoader, torchvision's `transforms.v2` of each tensor": loader(tensors, from_tensors),
        "DataLoader, the same by hand in numpy, sample by sample": loader(list(images), _by_hand),
        ours: our_batches(
            "data._target_=benchmarks.peers.pictures.Pictures",
            "~data.shift",
            f"+data.size={size}",
            "allowed_packages=[benchmarks]",
        ),
    }
    batches = {name: 100 if name == ours else 10 for name in contestants}
    return rows(
        f"{size:,} pictures of 3×32×32 bytes in memory: random crop, mirrored or not, normalised",
        "Ours draws the parameters of each sample from its own key, so they do not depend on the batch.",
        contestants,
        batches,
        5 if quick else 20,
        base,
    )


def _by_hand(image: np.ndarray) -> torch.Tensor:
    from .peers.pictures import MEAN, SHIFT, STD

    padded = np.pad(image, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
    down, right = np.random.randint(2 * SHIFT + 1, size=2)
    cut = padded[down : down + 32, right : right + 32]
    cut = cut[:, ::-1] if np.random.random() < 0.5 else cut
    values = (cut.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def _folder(quick: bool) -> Table:
    project()
    from PIL import Image
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    from .peers.pictures import draw

    size, side = (256, 32) if quick else (2048, 96)
    root = temporary()
    images, _ = draw(size, side)
    for number, image in zip(count(), images):
        folder = root / "train" / str(number % 4)
        folder.mkdir(parents=True, exist_ok=True)
        small = (
            Image.fromarray(image).resize((side // 8, side // 8)).resize((side, side))
        )  # structure, so that JPEG compresses it
        small.save(folder / f"{number}.jpg", quality=90)
    shutil.copytree(root / "train", root / "val")
    shift = side // 10
    transform = v2.Compose(
        [
            *(v2.RandomCrop(side, padding=shift), v2.RandomHorizontalFlip(), v2.ToImage()),
            *(v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)),
        ]
    )
    plain = DataLoader(ImageFolder(root / "train", transform), batch_size=BATCH, shuffle=True, drop_last=True)
    overrides = ("data=image_folder", f"data.root={root}", f"data.size={side}", "data.flip=true", "data.channels=3")
    base = "DataLoader, torchvision's ImageFolder and transforms"
    contestants = {
        base: endless(plain),
        "ours, `data=image_folder`": our_batches(*overrides),
        "ours, `data.in_memory=true`": our_batches(*overrides, "data.in_memory=true"),
    }
    table = rows(
        f"A folder of {size:,} JPEG files of 3×{side}×{side}, random crop, mirrored or not, normalised",
        "One process. Loader workers multiply the first two rows. In memory, files are decoded once, at the start.",
        contestants,
        {name: 2 if "in_memory" not in name else 20 for name in contestants},
        3 if quick else 10,
        base,
    )
    return table
