"""MNIST, FashionMNIST, CIFAR-10 and CIFAR-100. torchvision downloads them."""

import contextlib
import hashlib
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..errors import UserError, one_line
from ..rng import Permutation
from . import SPLIT_KEY
from .arrays import ArrayImages
from .windows import PictureData

_NAMES = ("MNIST", "FashionMNIST", "CIFAR10", "CIFAR100")

_CLASSES = {
    "MNIST": [
        *("0 - zero", "1 - one", "2 - two", "3 - three", "4 - four"),
        *("5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine"),
    ],
    "FashionMNIST": [
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ],
}
"""torchvision's names of the classes."""


class TorchvisionImages(PictureData):
    """One of torchvision's image sets, in memory.

    The published test set is the test split. `val_size` pictures of the training set are held out
    for validation.
    """

    def __init__(
        self,
        dataset: str,
        root: str,
        val_size: int,
        shift: int,
        flip: bool,
        mean: float | list[float],
        std: float | list[float],
    ) -> None:
        if dataset not in _NAMES:
            raise UserError(f"data.dataset={dataset} is not one of {', '.join(_NAMES)}.")
        train = _load(dataset, root, train=True)
        test = _load(dataset, root, train=False)
        images, labels = _arrays(train)
        if not 1 <= val_size < len(labels):
            raise UserError(f"data.val_size={val_size} must be from 1 to {len(labels) - 1}.")
        order = Permutation(len(labels), SPLIT_KEY).compute(0, len(labels))
        held_out, rest = np.sort(order[:val_size]), np.sort(order[val_size:])
        self.info = {
            "shape": (images.shape[3], *images.shape[1:3]),
            "classes": len(train.classes),
            "class_names": list(train.classes),
        }
        self.splits = {
            "train": ArrayImages(images[rest], labels[rest], mean, std, shift, flip),
            "val": ArrayImages(images[held_out], labels[held_out], mean, std),
            "test": ArrayImages(*_arrays(test), mean, std),
        }
        self._fingerprint = hashlib.sha256(images.tobytes()).hexdigest()[:16]

    def fingerprint(self) -> str:
        return self._fingerprint


def _read_raw(name: str, folder: Path, train: bool) -> SimpleNamespace | None:
    """Return MNIST or FashionMNIST like torchvision, or None if files are missing or damaged."""
    if name not in _CLASSES:
        return None
    raw, part = folder / name / "raw", "train" if train else "t10k"
    try:
        images = (raw / f"{part}-images-idx3-ubyte").read_bytes()
        labels = (raw / f"{part}-labels-idx1-ubyte").read_bytes()
    except OSError:
        return None
    count = len(labels) - 8
    if count < 1 or len(images) != 16 + count * 28 * 28:
        return None
    if images[:16] + labels[:8] != struct.pack(">6I", 0x803, count, 28, 28, 0x801, count):
        return None
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(count, 28, 28)
    targets = np.frombuffer(labels, np.uint8, offset=8)
    return SimpleNamespace(data=pixels, targets=targets, classes=_CLASSES[name])


def _load(name: str, root: str, train: bool) -> Any:
    """Return one of torchvision's data sets. Download it if it is missing. Raises `UserError`."""
    folder = Path(root).absolute()
    if (raw := _read_raw(name, folder, train)) is not None:
        return raw
    from torchvision import datasets  # the import takes longer than an epoch of MNIST

    kind = getattr(datasets, name)
    try:
        try:
            return kind(folder, train=train)
        except RuntimeError:  # not there, or incomplete
            return kind(folder, train=train, download=True)
    except (RuntimeError, ValueError, OSError, AssertionError, IndexError) as error:
        for path in (folder / name / "raw", folder / name, folder):
            with contextlib.suppress(OSError):  # not empty, or not there
                path.rmdir()
        raise UserError(
            f"{name} in {folder} cannot be read or downloaded ({one_line(error)}). Name a folder "
            "that has it: data.root=PATH. If its files are damaged, delete them."
        ) from error


def _arrays(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return images, uint8 [N, H, W, C], and labels, int64 [N], of a data set of torchvision."""
    images, labels = np.asarray(dataset.data), np.asarray(dataset.targets, dtype=np.int64)
    return (images[..., None] if images.ndim == 3 else images), labels
