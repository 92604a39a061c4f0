"""Your own pictures, one folder per class."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..api import PICTURES, Data
from ..errors import UserError
from ..paths import files_below
from ..rng import Permutation
from ..text import logger
from .arrays import Canvases, cut_canvas, draw, mirror, normalisation, normalise, own_key
from .memory import free_bytes
from .pictures import UNREADABLE, read, unreadable

_VALIDATION = ("val", "valid", "validation")

_LOOKED_AT = 500  # pictures whose headers decide size and channels

_SPLIT_KEY = 0x5EED  # the validation set is the same in every run, whatever its seed

Sample = tuple[str, int]
"""Path and class number."""


class ImageFolder(Data):
    """`root/train/<class>/*` and `root/val/<class>/*`, perhaps `root/test/<class>/*`; or
    `root/<class>/*`, of which the share `val_fraction` of each class is held out.

    Size and channels are those of the pictures: where sizes differ, the median height and width,
    scaled down to at most `max_size` pixels; three channels where any picture has colour.

    `in_memory`: each split is read once, at the start, and kept as bytes; its batches are the same.
    """

    def __init__(
        self,
        root: str,
        val_fraction: float,
        size: int | list[int] | None,
        max_size: int,
        channels: int | None,
        shift: float,
        flip: bool,
        mean: float | list[float],
        std: float | list[float],
        in_memory: bool = False,
    ) -> None:
        if not 0 < val_fraction < 1:
            raise UserError(f"data.val_fraction={val_fraction} must be between 0 and 1.")
        if not 0 <= shift < 1:
            raise UserError(f"data.shift={shift} must be from 0 to less than 1.")
        if channels not in (None, 1, 3):
            raise UserError(f"data.channels={channels} must be 1 (grey), 3 (colour) or null.")
        folder = Path(root).expanduser().absolute()
        if not folder.is_dir():
            raise UserError(
                f"There is no folder {folder}; give the one that holds your pictures as "
                "data.root=PATH."
            )
        names, splits = _find_samples(folder, val_fraction)
        height, width, found_channels = _look(splits["train"], max_size)
        if size is not None:
            height, width = (size, size) if isinstance(size, int) else _pair(size)
        if min(height, width) < 1:
            raise UserError(f"data.size={size} must be at least 1 pixel.")
        channels = channels or found_channels
        self.folder, self._samples, self.in_memory = folder, splits, in_memory
        self.info = {
            "shape": (channels, height, width),
            "classes": len(names),
            "class_names": names,
        }
        self.splits = {
            name: Pictures(
                samples,
                (channels, height, width),
                mean,
                std,
                shift=shift if name == "train" else 0.0,
                flip=flip and name == "train",
            )
            for name, samples in splits.items()
        }

    def split(self, name: str) -> Dataset[Any] | None:
        pictures = self.splits.get(name)
        if pictures is None or not self.in_memory:
            return pictures
        return pictures.in_memory(name)

    def files(self, paths: Sequence[str]) -> Dataset[Any]:
        pictures = copy.copy(self.splits["val"])
        pictures.samples = [(path, -1) for path in paths]
        return pictures

    def fingerprint(self) -> str:
        """From the names and sizes of all files: reading their pixels would take minutes."""
        digest = hashlib.sha256()
        for samples in self._samples.values():
            for path, _ in samples:
                name = os.path.relpath(path, self.folder)
                digest.update(
                    f"{name}\0{os.path.getsize(path)}\n".encode("utf-8", "surrogateescape")
                )
        return digest.hexdigest()[:16]


class Pictures(Dataset[Any]):
    """Reads pictures by path: image float32 [C, H, W], normalised by mean and std, and label.

    A picture is scaled to cover H×W, then cut: in the middle, or with `shift` up to that share of
    its size beside it. It is a `BatchDataset` (see api.py) that loader workers read.
    """

    in_workers = True

    def __init__(
        self,
        samples: list[Sample],
        shape: tuple[int, int, int],
        mean: float | Sequence[float],
        std: float | Sequence[float],
        shift: float,
        flip: bool,
    ) -> None:
        self.samples, self.shape, self.flip = samples, shape, flip
        self.shift = (int(shape[1] * shift), int(shape[2] * shift))
        self.offset, self.scale = normalisation(mean, std, shape[0])

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image float32 [C, H, W] and label; what is drawn comes from torch's generator."""
        images, labels = self.batch(np.array([index]), own_key(self.shift, self.flip))
        return images[0], int(labels[0])

    def batch(self, indices: np.ndarray, keys: np.ndarray) -> tuple[Tensor, Tensor]:
        """images float32 [B, C, H, W], labels int64 [B]."""
        _, height, width = self.shape
        down, right, mirrored = draw(keys, self.shift, self.flip)
        images = np.empty((len(indices), *self.shape), np.uint8)
        for image, index, y, x in zip(
            images, indices.tolist(), down.tolist(), right.tolist(), strict=True
        ):
            image[:] = self.canvas(index)[:, y : y + height, x : x + width]
        mirror(images, mirrored)
        labels = torch.tensor([self.samples[index][1] for index in indices.tolist()])
        return normalise(torch.from_numpy(images), self.offset, self.scale), labels

    def canvas(self, index: int) -> np.ndarray:
        """All of a picture that any window shows: uint8 [C, H + 2·down, W + 2·right]."""
        channels, height, width = self.shape
        down, right = self.shift
        pixels = read(self.samples[index][0], channels, height, width)
        return cut_canvas(pixels, height + 2 * down, width + 2 * right)

    def in_memory(self, name: str) -> Canvases:
        """The same pictures, read now. Raises `UserError` where they do not fit."""
        channels, height, width = self.shape
        down, right = self.shift
        shape = (len(self), channels, height + 2 * down, width + 2 * right)
        size, free = int(np.prod(shape)), free_bytes()
        if free is not None and size > free:
            raise UserError(
                f"data.in_memory=true needs {size / 2**30:.2f} GiB for the {len(self)} pictures of "
                f"{name}, and {free / 2**30:.2f} GiB are free; lower data.size or set it to false."
            )
        canvases = np.empty(shape, np.uint8)

        def fill(index: int) -> None:
            canvases[index] = self.canvas(index)

        logger.info(f"Reading {len(self):,} pictures of {name} into memory: {size / 2**20:.1f} MiB")
        with ThreadPoolExecutor() as pool:  # decoding and scaling let other threads run
            for _ in pool.map(fill, range(len(self))):
                pass
        labels = np.array([label for _, label in self.samples])
        return Canvases(canvases, labels, self.shift, self.flip, self.offset, self.scale)


def _find_samples(folder: Path, val_fraction: float) -> tuple[list[str], dict[str, list[Sample]]]:
    """Class names, and the samples of each split."""
    places = {name.lower(): folder / name for name in _folders(folder)}
    validation = next((places[name] for name in _VALIDATION if name in places), None)
    for long, short in (("training", "train"), ("testing", "test")):
        if long in places and (validation or {"test", "testing"} & places.keys()):
            places.setdefault(short, places[long])
    if "train" not in places:
        if validation is not None and _folders(validation):
            raise UserError(
                f"{folder} has a folder '{validation.name}' but no 'train': call the training "
                "pictures' folder 'train'."
            )
        names = _class_names(folder)
        train, val = _hold_out(_list(folder, names), len(names), val_fraction)
        return names, {"train": train, "val": val}

    names = _class_names(places["train"])
    splits = {"train": _list(places["train"], names)}
    for split, place in (("val", validation), ("test", places.get("test"))):
        if place is None:
            continue
        present = _folders(place)
        strange = [name for name in present if name not in names]
        if strange or not present:
            what = (
                f"the class '{strange[0]}', which {places['train']} has not"
                if strange
                else "no classes"
            )
            raise UserError(f"{place} has {what}.")
        splits[split] = _list(place, present, {name: i for i, name in enumerate(names)})
    if validation is None:
        splits["train"], splits["val"] = _hold_out(splits["train"], len(names), val_fraction)
    return names, splits


def _folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _class_names(folder: Path) -> list[str]:
    names = _folders(folder)
    if not names:
        raise UserError(
            f"{folder} has no folders; put the pictures of each class into one named after it."
        )
    if len(names) == 1:
        raise UserError(f"{folder} has only the class '{names[0]}'; there must be two or more.")
    return names


def _list(folder: Path, names: list[str], numbers: dict[str, int] | None = None) -> list[Sample]:
    samples: list[Sample] = []
    for place, name in enumerate(names):
        label = place if numbers is None else numbers[name]
        found = files_below(folder / name, PICTURES)
        if not found:
            raise UserError(
                f"{folder / name} holds no pictures (no file ends in {', '.join(PICTURES)})."
            )
        samples += [(path, label) for path in found]
    return samples


def _hold_out(
    samples: list[Sample], classes: int, val_fraction: float
) -> tuple[list[Sample], list[Sample]]:
    """Of each class a share, at least one and not all of them, where it has two or more."""
    train: list[Sample] = []
    val: list[Sample] = []
    by_label: list[list[Sample]] = [[] for _ in range(classes)]
    for sample in samples:
        by_label[sample[1]].append(sample)
    for label, own in enumerate(by_label):
        count = min(max(1, round(val_fraction * len(own))), len(own) - 1)
        held_out = set(Permutation(len(own), _SPLIT_KEY + label).compute(0, count).tolist())
        for place, sample in enumerate(own):
            (val if place in held_out else train).append(sample)
    if not val:
        raise UserError("Every class has only one picture: nothing can be held out for validation.")
    return train, val


def _look(samples: list[Sample], max_size: int) -> tuple[int, int, int]:
    """Height, width and channels for all pictures, from the headers of some."""
    if max_size < 1:
        raise UserError(f"data.max_size={max_size} must be at least 1 pixel.")
    count = min(len(samples), _LOOKED_AT)
    sizes, colour = [], False
    for index in np.linspace(0, len(samples) - 1, count).astype(int):
        path = samples[index][0]
        try:
            with Image.open(path) as image:
                # Asking a PNG would decode the whole of it.
                exif = image.getexif() if image.format in ("JPEG", "MPO", "TIFF") else {}
                turned = exif.get(0x0112, 1) in (5, 6, 7, 8)  # orientation
                width, height = reversed(image.size) if turned else image.size
                sizes.append((height, width))
                colour = colour or _has_colour(image)
        except UNREADABLE as error:
            raise unreadable(path, error) from error
    middle = np.median(np.array(sizes), axis=0)
    middle *= min(1.0, max_size / middle.max())
    return max(1, round(middle[0])), max(1, round(middle[1])), 3 if colour else 1


def _has_colour(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return image.mode not in ("1", "L", "LA", "La", "F") and not image.mode.startswith("I")


def _pair(size: list[int]) -> tuple[int, int]:
    if len(size) != 2:
        raise UserError(f"data.size={size} must be one number of pixels or [height, width].")
    return size[0], size[1]
