"""MNIST, FashionMNIST, CIFAR-10 and CIFAR-100. torchvision downloads them."""

import contextlib
import hashlib
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..config.schema import Rule, check_value
from ..errors import UserError, one_line
from ..rng import Permutation
from . import SPLIT_KEY
from .arrays import ArrayImages
from .windows import PictureData

_NAMES = ("MNIST", "FashionMNIST", "CIFAR10", "CIFAR100")

_DIGITS = "zero one two three four five six seven eight nine"

_CLASSES = {
    "MNIST": [f"{number} - {name}" for number, name in enumerate(_DIGITS.split())],
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
        check_value("data.dataset", dataset, Rule(one_of=_NAMES))
        images, labels, names = _load(dataset, root, train=True)
        test_images, test_labels, _ = _load(dataset, root, train=False)
        check_value("data.val_size", val_size, Rule(at_least=1, below=len(labels)))
        order = Permutation(len(labels), SPLIT_KEY).slice(0, len(labels))
        held_out, rest = np.sort(order[:val_size]), np.sort(order[val_size:])
        shape = (images.shape[3], *images.shape[1:3])
        self.info = {"shape": shape, "classes": len(names), "class_names": names}
        self.splits = {
            "train": ArrayImages(images[rest], labels[rest], mean, std, shift, flip),
            "val": ArrayImages(images[held_out], labels[held_out], mean, std),
            "test": ArrayImages(test_images, test_labels, mean, std),
        }
        self._fingerprint = hashlib.sha256(images.tobytes()).hexdigest()[:16]

    def fingerprint(self) -> str:
        return self._fingerprint


def _load(name: str, root: str, train: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return images, uint8 [N, H, W, C], labels, int64 [N], and class names. Raises `UserError`."""
    folder = Path(root).absolute()
    found = _read_raw(name, folder, train) or _ask_torchvision(name, folder, train)
    images, labels = np.asarray(found.data), np.asarray(found.targets, dtype=np.int64)
    return (images[..., None] if images.ndim == 3 else images), labels, list(found.classes)


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
    count = max(0, len(labels) - 8)
    headers = struct.pack(">6I", 0x803, count, 28, 28, 0x801, count)
    if not count or len(images) != 16 + count * 28 * 28 or images[:16] + labels[:8] != headers:
        return None
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(count, 28, 28)
    targets = np.frombuffer(labels, np.uint8, offset=8)
    return SimpleNamespace(data=pixels, targets=targets, classes=_CLASSES[name])


def _ask_torchvision(name: str, folder: Path, train: bool) -> Any:
    """Return one of torchvision's data sets. Download it if it is missing. Raises `UserError`."""
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
