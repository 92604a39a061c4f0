"""Your own pictures, in one folder for each class."""

import hashlib
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from ..api import PICTURES
from ..config.schema import Rule, check_value
from ..errors import UserError
from ..paths import files_below
from ..rng import Permutation
from ..text import logger
from . import SPLIT_KEY
from .arrays import Canvases
from .pictures import opened
from .windows import PictureData, PictureFiles, Sample, normalisation

_LOOKED_AT = 500  # pictures whose headers decide size and channels

_NAMES = {
    "train": ("training", "train"),
    "val": ("validation", "valid", "val"),
    "test": ("testing", "test"),
}
"""The names that the folder of a split may have."""


class ImageFolder(PictureData):
    """Pictures in `root/train/<class>/`, `root/val/<class>/` and, if you have them,
    `root/test/<class>/`; or in `root/<class>/`, where `val_fraction` of each class is held out.

    If `size` is null, it is the median height and width, scaled down to at most `max_size` pixels.
    If `channels` is null, it is 3 as soon as one picture has colour, else 1.

    `in_memory` reads each split once, at the start. The batches stay the same.

    With the `info` of a run, pictures get its shape and class numbers. Then `root` is read when a
    split is asked for, and must have the run's classes.
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
        info: Mapping[str, Any] | None = None,
    ) -> None:
        check_value("data.val_fraction", val_fraction, Rule(above=0, below=1))
        check_value("data.shift", shift, Rule(at_least=0, below=1))
        check_value("data.max_size", max_size, Rule(at_least=1))
        if channels not in (None, 1, 3):
            raise UserError(f"data.channels={channels} must be 1 (grey), 3 (colour) or null.")
        sides = [size, size] if isinstance(size, int) else size
        if sides is not None and (len(sides) != 2 or min(sides) < 1):
            raise UserError(f"data.size={size} must be a number of pixels, or [height, width].")
        self.folder, self.val_fraction = Path(root).expanduser().absolute(), val_fraction
        self.shift, self.flip, self.in_memory = shift, flip, in_memory
        if info is None:
            names, samples = self.found
            *found_sides, found_channels = _look(samples["train"], max_size)
            shape = (channels or found_channels, *(sides or found_sides))
            info = {"shape": shape, "classes": len(names), "class_names": names}
        self.info = dict(info)
        self.normal = normalisation(mean, std, info["shape"][0])
        self.still = PictureFiles([], info["shape"], (0, 0), False, *self.normal)

    @cached_property
    def found(self) -> tuple[list[str], dict[str, list[Sample]]]:
        """The class names, and the samples of each split. Raises `UserError`."""
        return _find_samples(self.folder, self.val_fraction)

    @cached_property
    def splits(self) -> dict[str, PictureFiles]:  # type: ignore[override]
        """Raises `UserError`."""
        names, samples = self.found
        if names != (known := self.info["class_names"]):
            other = ", ".join(sorted(set(names) ^ set(known))) or "their order"
            raise UserError(f"{self.folder} has other classes than the run: {other}.")
        _, height, width = shape = self.info["shape"]
        moved = ((int(height * self.shift), int(width * self.shift)), self.flip)
        still = ((0, 0), False)
        return {
            name: PictureFiles(own, shape, *(moved if name == "train" else still), *self.normal)
            for name, own in samples.items()
        }

    def split(self, name: str) -> Dataset[Any] | None:
        files = self.splits.get(name)
        if files is None or not self.in_memory:
            return files
        channels, height, width = files.shape
        shape = (len(files), channels, height + 2 * files.shift[0], width + 2 * files.shift[1])
        size = f"{math.prod(shape) / 2**20:,.1f} MiB"
        try:
            canvases = np.empty(shape, np.uint8)
        except MemoryError:
            raise UserError(
                f"data.in_memory=true needs {size} for the {len(files)} pictures of {name}. Lower "
                "data.size, or set data.in_memory=false."
            ) from None
        logger.info(f"Reading {len(files):,} pictures of {name} into memory: {size}")
        with ThreadPoolExecutor() as pool:  # decoding and scaling let other threads run
            for index, canvas in enumerate(pool.map(files.canvas, range(len(files)))):
                canvases[index] = canvas
        options = (files.labels, files.shape, files.shift, files.flip, files.offset, files.scale)
        return Canvases(*options, canvases)

    def fingerprint(self) -> str:
        """Hash the names and sizes of all files. To read their pixels would take minutes."""
        digest = hashlib.sha256()
        for files in self.splits.values():
            for path, _ in files.samples:
                name = os.path.relpath(path, self.folder)
                digest.update(os.fsencode(f"{name}\0{os.path.getsize(path)}\n"))
        return digest.hexdigest()[:16]


def _find_samples(folder: Path, val_fraction: float) -> tuple[list[str], dict[str, list[Sample]]]:
    """Return the class names, and the samples of each split."""
    if not folder.is_dir():
        raise UserError(f"The folder {folder} does not exist. Set data.root=PATH.")
    places = {name.lower(): folder / name for name in _folders(folder)}
    found = {split: places[n] for split, names in _NAMES.items() for n in names if n in places}
    is_class = "train" not in places and len(found) == 1  # `training` alone may be a class
    if "train" not in found or is_class:
        if "val" in found and _folders(found["val"]):
            raise UserError(f"{folder} has a folder '{found['val'].name}', but no 'train'.")
        found = {"train": folder}
    names = _folders(found["train"])
    splits: dict[str, list[Sample]] = {split: [] for split in (*found, "val")}
    for split, place in found.items():
        present, least = _folders(place), 2 if split == "train" else 1
        if len(present) < least:
            text = f"{place} has {len(present)} folders. It needs one for each class"
            raise UserError(f"{text}, at least {least}.")
        for name in present:
            if name not in names:
                raise UserError(f"Class '{name}' is in {place}, but not in {found['train']}.")
            paths, number = files_below(place / name, PICTURES), names.index(name)
            if not paths:
                raise UserError(f"{place / name} has no pictures: {', '.join(PICTURES)}.")
            held_out: set[int] = set()
            if split == "train" and "val" not in found:  # at least one picture, but never all
                count = min(max(1, round(val_fraction * len(paths))), len(paths) - 1)
                order = Permutation(len(paths), SPLIT_KEY + number)
                held_out.update(order.slice(0, count).tolist())
            for index, path in enumerate(paths):
                splits["val" if index in held_out else split].append((path, number))
    if not splits["val"]:
        raise UserError("Every class has only one picture: none can be held out for validation.")
    return names, splits


def _folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _look(samples: list[Sample], max_size: int) -> tuple[int, int, int]:
    """Return height, width and channels for all pictures, from the headers of some."""
    sizes, colour = [], False
    for index in np.linspace(0, len(samples) - 1, min(len(samples), _LOOKED_AT)).astype(int):
        with opened(samples[index][0]) as image:
            # For a PNG, this would decode the whole file.
            exif = image.getexif() if image.format in ("JPEG", "MPO", "TIFF") else {}
            turned = exif.get(0x0112, 1) in (5, 6, 7, 8)  # orientation
            sizes.append(image.size if turned else image.size[::-1])
            colour = colour or _has_colour(image)
    middle = np.median(np.array(sizes), axis=0)
    middle *= min(1.0, max_size / middle.max())
    return max(1, round(middle[0])), max(1, round(middle[1])), 3 if colour else 1


def _has_colour(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return image.mode not in ("1", "L", "LA", "La", "F") and not image.mode.startswith("I")
