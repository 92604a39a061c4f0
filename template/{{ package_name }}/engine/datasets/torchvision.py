"""MNIST, FashionMNIST, CIFAR-10 and CIFAR-100. torchvision downloads them."""

import contextlib
import hashlib
import struct
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..config.schema import Rule, check_value
from ..errors import UserError, one_line
from ..folds import split_by_fold
from ..rng import Permutation
from . import SPLIT_KEY
from .arrays import ArrayImages
from .pictures import PLAIN
from .windows import NO_SAMPLES, PictureData, PictureFiles, normalisation

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
    for validation. Or `folds` and `fold` cut the training set: cross-validation.
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
        augment: list[Any] | None = None,
        folds: int | None = None,
        fold: int = 0,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        """augment: see `Augment`. With the `info` of a run, the files are read when a split is asked for."""
        check_value("data.dataset", dataset, Rule(one_of=_NAMES))
        self.dataset, self.root, self.val_size = dataset, root, val_size
        self.folds = folds and (folds, fold)
        self.normal, self.moved, self.augment = (mean, std), (shift, flip), augment
        if info is None:
            images, _, names = self.training
            shape = (images.shape[3], *images.shape[1:3])
            info = {"shape": shape, "classes": len(names), "class_names": names}
        self.info, shape = dict(info), info["shape"]
        options = (shape, (0, 0), False, *normalisation(mean, std, shape[0]))
        self.still = PictureFiles(NO_SAMPLES, PLAIN, *options)

    @cached_property
    def training(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """All that is not for the test. Raises `UserError`."""
        return _load(self.dataset, self.root, train=True)

    @cached_property
    def splits(self) -> dict[str, ArrayImages]:  # type: ignore[override]
        """Raises `UserError`."""
        images, labels, _ = self.training
        test_images, test_labels, _ = _load(self.dataset, self.root, train=False)
        if self.folds:
            rest, held_out = split_by_fold(labels, *self.folds)
        else:
            check_value("data.val_size", self.val_size, Rule(at_least=1, below=len(labels)))
            order = Permutation(len(labels), SPLIT_KEY).slice(0, len(labels))
            held_out, rest = np.sort(order[: self.val_size]), np.sort(order[self.val_size :])
        return {
            "train": ArrayImages(images[rest], labels[rest], *self.normal, *self.moved),
            "val": ArrayImages(images[held_out], labels[held_out], *self.normal),
            "test": ArrayImages(test_images, test_labels, *self.normal),
        }

    def split(self, name: str) -> ArrayImages | None:
        images = self.splits.get(name)
        return images.augmented(self.augment) if images and name == "train" else images

    def fingerprint(self) -> str:
        return hashlib.sha256(self.training[0].tobytes()).hexdigest()[:16]


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
