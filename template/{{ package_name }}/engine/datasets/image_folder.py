"""Your own pictures, in one folder for each class."""

import hashlib
import math
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..config.schema import Rule, check_value
from ..errors import UserError
from ..text import logger
from .arrays import Canvases
from .cache import SIDE, Cache, cached
from .finding import Found, by_folders, in_folds, without
from .pictures import Decoding, check_decoding, in_threads, look
from .windows import NO_SAMPLES, PictureData, PictureFiles, Samples, normalisation


class ImageFolder(PictureData):
    """Pictures in `root/train/<class>/`, `root/val/<class>/` and, if you have them,
    `root/test/<class>/`; or in `root/<class>/`, where `val_fraction` of each class is held out.

    If `size` is null, it is the median height and width, scaled down to at most `max_size` pixels.
    If `channels` is null, it is 3 if `colour_share` of the pictures have colour, else 1.
    `range` and `background`: see `Decoding`. An "auto" range is that of the training pictures.
    `skip`: patterns of names that are no data. `leave_out`: a text file of pictures, too.

    `augment`: changes to training pictures (see `Augment`). If RandomResizedCrop is the first of them,
    it cuts boxes from the whole pictures, instead of `shift`.

    `folds` and `fold`: cross-validation, over the pictures of train and val. See engine/folds.py.

    `in_memory` reads each split once, at the start. The batches stay the same.

    `cache`: a folder for decoded pictures (see cache.py). Their shorter side is 256 pixels, or 8/7 of
    the larger side of `size` if that is more. All pictures come from there, in each epoch and run.

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
        test_fraction: float = 0.0,
        colour_share: float = 0.0,
        range: list[float] | str | None = None,
        background: str | None = None,
        skip: list[str] | None = None,
        leave_out: str | None = None,
        augment: list[Any] | None = None,
        folds: int | None = None,
        fold: int = 0,
        cache: str | None = None,
        info: Mapping[str, Any] | None = None,
        forgiving: bool = False,
    ) -> None:
        """forgiving: whether pictures that cannot be read may be among the training pictures."""
        check_value("data.val_fraction", val_fraction, Rule(above=0, below=1))
        check_value("data.test_fraction", test_fraction, Rule(at_least=0, below=1 - val_fraction))
        check_value("data.shift", shift, Rule(at_least=0, below=1))
        check_value("data.max_size", max_size, Rule(at_least=1))
        check_value("data.colour_share", colour_share, Rule(at_least=0, at_most=1))
        if channels not in (None, 1, 3):
            raise UserError(f"data.channels={channels} must be 1 (grey), 3 (colour) or null.")
        check_decoding(range, background)
        sides = [size, size] if isinstance(size, int) else size
        if sides is not None and (len(sides) != 2 or min(sides) < 1):
            raise UserError(f"data.size={size} must be a number of pixels, or [height, width].")
        self.folder = Path(root).expanduser().absolute()
        self.shift, self.flip, self.in_memory, self.augment = shift, flip, in_memory, augment
        self.skip, self.leave_out, self.folds = skip, leave_out, folds and (folds, fold)
        self.shares = {"val": val_fraction}
        self.cache = Path(cache).expanduser().absolute() if cache else None
        if test_fraction:
            self.shares["test"] = test_fraction
        if info is None:
            names, samples = self.found
            if len(names) < 2 and samples["train"].labels.ndim == 1:
                raise UserError(
                    f"All pictures have the class '{names[0]}'. Give at least 2 classes."
                )
            train, share = samples["train"], colour_share if channels is None else 0.0
            *found, values = look(train, max_size, share, range, background, forgiving)
            shape = (channels or found[0], *(sides or found[1:]))
            info = {"shape": shape, "classes": len(names), "class_names": names}
            info |= {"range": values} if values else {}
            info |= {"multi_label": True} if train.labels.ndim == 2 else {}
        self.info = dict(info)
        self.normal = normalisation(mean, std, info["shape"][0])
        self.decoding = Decoding(info.get("range"), background)
        self.side = max(SIDE, math.ceil(max(info["shape"][1:]) * 8 / 7))
        if self.cache is not None and info.get("range"):
            raise UserError("data.cache holds pictures of 8 bits only. Set data.cache=null.")
        options = (info["shape"], (0, 0), False, *self.normal)
        self.still = PictureFiles(NO_SAMPLES, self.decoding, *options)

    def find(self) -> Found:
        """Return what `Found` says. A subclass may find pictures elsewhere. Raises `UserError`."""
        if self.cache is not None and self.folder in self.cache.parents:
            raise UserError(f"data.cache={self.cache} would be a class. Name a folder elsewhere.")
        known = None if self.folds else self.info.get("class_names")
        return by_folders(self.folder, self.shares, self.skip, known)

    @cached_property
    def found(self) -> tuple[list[str], dict[str, Samples]]:
        """The class names, and the samples of each split. Raises `UserError`."""
        found = self.find()
        if self.leave_out is not None:
            found = without(found, self.folder, Path(self.leave_out))
        if self.folds:
            found = in_folds(found, *self.folds)
        return found[0], {k: Samples(str(self.folder), *own) for k, own in found[1].items()}

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
            name: PictureFiles(
                own, self.decoding, shape, *(moved if name == "train" else still), *self.normal
            )
            for name, own in samples.items()
        }

    @cached_property
    def caches(self) -> dict[str, Cache]:
        """Raises `UserError` or `SaveError`."""
        if self.cache is None:
            return {}
        samples = {name: files.samples for name, files in self.splits.items()}
        return cached(self.cache, samples, self.info["shape"][0], self.decoding, self.side)

    def split(self, name: str) -> Dataset[Any] | None:
        files = self.splits.get(name)
        if files is None:
            return None
        augment = self.augment if name == "train" else None
        files = files.augmented(augment)
        files.cache = self.caches.get(name)
        if not self.in_memory:
            return files
        if files.augment is not None and files.augment.cuts_box:
            raise UserError("RandomResizedCrop needs whole pictures. Set data.in_memory=false.")
        channels, height, width = files.shape
        shape = (len(files), channels, height + 2 * files.shift[0], width + 2 * files.shift[1])
        size = f"{math.prod(shape) * np.dtype(files.dtype).itemsize / 2**20:,.1f} MiB"
        try:
            canvases = np.empty(shape, files.dtype)
        except MemoryError:
            raise UserError(
                f"data.in_memory=true needs {size} for the {len(files)} pictures of {name}. Lower "
                "data.size, or set data.in_memory=false."
            ) from None
        logger.info(f"Reading {len(files):,} pictures of {name} into memory: {size}")
        for index, canvas in enumerate(in_threads(files.canvas, range(len(files)))):
            canvases[index] = canvas
        options = (files.labels, files.shape, files.shift, files.flip, files.offset, files.scale)
        return Canvases(*options, canvases).augmented(augment)

    def fingerprint(self) -> str:
        """Hash the names and sizes of all files. To read their pixels would take minutes."""
        digest = hashlib.sha256(b"" if self.cache is None else f"cache {self.side}".encode())
        for files in self.splits.values():
            for index in range(len(files)):
                name, size = files.samples.name(index), os.path.getsize(files.samples[index])
                digest.update(os.fsencode(f"{name}\0{size}\n"))
        return digest.hexdigest()[:16]
