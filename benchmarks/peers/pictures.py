"""Pictures in memory with the usual augmentation for CIFAR-10, as a project's own `Data`."""

from __future__ import annotations

import numpy as np
from digits.engine.api import Data
from digits.engine.datasets.arrays import ArrayImages
from torch.utils.data import Dataset

MEAN, STD, SHIFT = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616], 4


def draw(size: int, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [size, side, side, 3] and int64 [size]."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (size, side, side, 3), dtype=np.uint8)
    return images, generator.integers(10, size=size)


class Pictures(Data):
    def __init__(self, size: int, side: int = 32) -> None:
        self.info = {"shape": (3, side, side), "classes": 10}
        images, labels = draw(size, side)
        self.splits = {
            "train": ArrayImages(images, labels, MEAN, STD, SHIFT, flip=True),
            "val": ArrayImages(images[: size // 5], labels[: size // 5], MEAN, STD),
        }

    def split(self, name: str) -> Dataset | None:
        return self.splits.get(name)
