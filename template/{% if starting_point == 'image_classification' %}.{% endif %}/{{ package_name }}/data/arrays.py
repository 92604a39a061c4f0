"""Your own pictures as arrays of numpy: a folder of .npy files, or one .npz file."""

import hashlib
import math
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..engine.api import UserError
from ..engine.datasets.arrays import Canvases
from ..engine.datasets.finding import hold_out
from ..engine.datasets.pictures import Decoding
from ..engine.datasets.windows import NO_SAMPLES, PictureData, PictureFiles, Windows, normalisation
from ..engine.folds import split_by_fold

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


class Arrays(PictureData):
    """Pictures `x`, [N, H, W], [N, H, W, C] or [N, C, H, W], and labels `y`, [N] or [N, classes].

    `path` is a folder of .npy files, which are not read as a whole, or a .npz file. The names of the arrays may
    hold a split: x_train, train_x. Without arrays for them, `val_fraction` and `test_fraction` of each class are held
    out. `folds` and `fold`: cross-validation.

    Bytes stay bytes. Other numbers from `range` [black, white] become 0 to 255, as floats; "auto": the
    extremes in the training pictures.
    """

    def __init__(
        self,
        path: str,
        x: str,
        y: str,
        val_fraction: float,
        test_fraction: float,
        range: list[float] | str,
        shift: int,
        flip: bool,
        mean: float | list[float],
        std: float | list[float],
        augment: list[Any] | None = None,
        folds: int | None = None,
        fold: int = 0,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        if not (val_fraction > 0 and test_fraction >= 0 and val_fraction + test_fraction < 1):
            both = f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction}"
            raise UserError(f"{both} must be above 0, and below 1 together.")
        self.place, self.names = Path(path).expanduser().absolute(), (x, y)
        self.shares = {"val": val_fraction, **({"test": test_fraction} if test_fraction else {})}
        self.folds = folds and (folds, fold)
        self.shift, self.flip, self.augment = shift, flip, augment
        self.info = dict(self.measured(range) if info is None else info)
        self.normal = normalisation(mean, std, self.info["shape"][0])
        shape, decoding = self.info["shape"], Decoding(self.info.get("range"))
        if not 0 <= shift < min(shape[1:]):
            raise UserError(
                f"data.shift={shift} must be pixels, at least 0 and below {min(shape[1:])}."
            )
        self.still = PictureFiles(NO_SAMPLES, decoding, shape, (0, 0), False, *self.normal)

    @cached_property
    def found(self) -> tuple["Stored", np.ndarray, dict[str, np.ndarray]]:
        """The pictures, all labels, and the rows of each split. Raises `UserError`."""
        known = names_in(self.place)
        keys = {split: [array_of(known, name, split) for name in self.names] for split in SPLITS}
        if None in keys["train"]:
            key, name = ("x", self.names[0]) if keys["train"][0] is None else ("y", self.names[1])
            raise UserError(
                f"{self.place} has no array '{name}', but {', '.join(known)}. Set data.{key}=NAME."
            )
        for split, (x, y) in keys.items():
            if (x is None) != (y is None):
                lacking = self.names[x is not None]
                warnings.warn(f"'{x or y}' is not read: {split} has no '{lacking}'.", stacklevel=2)
        pairs = {split: (str(x), str(y)) for split, (x, y) in keys.items() if x and y}
        pixels = Stored(self.place, tuple(x for x, _ in pairs.values()))
        targets = Stored(self.place, tuple(y for _, y in pairs.values()))
        pixels.refuse_other_than_pictures()
        for name, array, own in zip(targets.names, pixels.arrays, targets.arrays, strict=True):
            alike = [(one.dtype, *one.shape[1:]) for one in (array, pixels.arrays[0])]
            if array.shape[:1] != own.shape[:1] or alike[0] != alike[1]:
                raise UserError(
                    f"The pictures of '{name}' are {array.dtype} {list(array.shape)}, and it has "
                    f"{own.shape[0] if own.ndim else 1} labels. Give as many of each, and pictures of one size "
                    "and type."
                )
            if own.shape[1:] != (wanted := targets.arrays[0].shape[1:]):
                raise UserError(
                    f"'{name}' is {list(own.shape)}, and in training a label is {list(wanted)}. Give each split "
                    "labels of one shape."
                )
        labels = as_classes(np.concatenate(targets.arrays))
        ends = np.cumsum([len(own) for own in targets.arrays])
        rows = dict(zip(pairs, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
        return pixels, labels, held_out(rows, labels, self.shares, self.folds)

    def measured(self, wanted: list[float] | str) -> dict[str, Any]:
        """Return what models need to know of the arrays. Raises `UserError`."""
        pixels, labels, rows = self.found
        known = np.concatenate([rows["train"], rows["val"]]) if self.folds else rows["train"]
        info: dict[str, Any] = {"class_names": [str(name) for name in np.unique(labels[known])]}
        if labels.ndim == 2:
            names = [str(number) for number in range(labels.shape[1])]
            info = {"class_names": names, "multi_label": True}
        if len(info["class_names"]) < 2:
            name = info["class_names"][0]
            raise UserError(f"All pictures have the class '{name}'. Give at least 2 classes.")
        is_pair = isinstance(wanted, list) and len(wanted) == 2 and wanted[0] < wanted[1]
        if wanted != "auto" and (not is_pair or pixels.kind == np.uint8):
            raise UserError(
                f"data.range={wanted} is not possible with {pixels.kind}. Bytes take auto, and other "
                "numbers [lowest, highest] or auto."
            )
        if pixels.kind != np.uint8:
            info["range"] = pixels.extent(rows["train"]) if wanted == "auto" else wanted
        return {"shape": pixels.shape, "classes": len(info["class_names"]), **info}

    @cached_property
    def splits(self) -> dict[str, Windows]:  # type: ignore[override]
        """Raises `UserError`."""
        pixels, labels, rows = self.found
        if labels.ndim == 1:
            known = self.info["class_names"]
            texts = labels.astype(str)
            if other := sorted(set(texts) - set(known)):
                raise UserError(
                    f"{self.place} has the class '{other[0]}', which training does not have."
                )
            numbers = {name: number for number, name in enumerate(known)}
            labels = np.array([numbers[text] for text in texts.tolist()])
        return {name: self.windows(pixels, labels, own, name) for name, own in rows.items()}

    def windows(self, pixels: "Stored", labels: np.ndarray, rows: np.ndarray, name: str) -> Windows:
        is_train = name == "train"
        moved = ((self.shift, self.shift) if is_train else (0, 0), is_train and self.flip)
        options = (torch.from_numpy(labels[rows]), self.info["shape"], *moved, *self.normal)
        span = self.info.get("range")
        if self.place.is_dir():
            return Mapped(pixels, rows, span, *options)
        return Canvases(*options, bordered(pixels.take(rows), span, moved[0][0]))

    def split(self, name: str) -> Windows | None:
        own = self.splits.get(name)
        return own.augmented(self.augment) if own is not None and name == "train" else own

    def files(self, paths: Sequence[str]) -> Dataset:
        if (channels := self.info["shape"][0]) not in (1, 3):
            raise UserError(f"Picture files have no {channels} channels. Put them into arrays.")
        return super().files(paths)

    def fingerprint(self) -> str:
        """Hash the labels, and some of the pictures."""
        pixels, labels, _ = self.found
        some = np.unique(np.linspace(0, len(labels) - 1, 100).astype(int))
        return hashlib.sha256(labels.tobytes() + pixels.take(some).tobytes()).hexdigest()[:16]


class Mapped(Windows):
    """Pictures of .npy files. A batch reads its own rows."""

    def __init__(
        self, pixels: "Stored", rows: np.ndarray, span: Sequence[float] | None, *options: Any
    ) -> None:
        super().__init__(*options)
        self.pixels, self.rows, self.span = pixels, rows, span
        self.sample_bytes = 4 * math.prod(self.shape)

    def cut(self, indices: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        canvases = bordered(self.pixels.take(self.rows[indices]), self.span, self.shift[0])
        options = (self.shape, self.shift, False, self.offset, self.scale)
        own = Canvases(self.labels[: len(indices)], *options, canvases)
        return own.cut(np.arange(len(indices)), down, right)


class Stored:
    """Arrays of files, one after the other. A loader worker opens them itself."""

    def __init__(self, place: Path, names: tuple[str, ...]) -> None:
        self.place, self.names = place, names

    def __reduce__(self) -> tuple[Any, ...]:
        return Stored, (self.place, self.names)

    @cached_property
    def arrays(self) -> list[np.ndarray]:
        """Raises `UserError`."""
        try:
            if self.place.is_dir():
                return [np.load(self.place / f"{name}.npy", mmap_mode="r") for name in self.names]
            with np.load(self.place) as file:
                return [np.asarray(file[name]) for name in self.names]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(
                f"{self.place} cannot be read: {str(error).rstrip('.')}. Save plain numbers with np.save, and "
                "texts after .astype(str)."
            ) from None

    def refuse_other_than_pictures(self) -> None:
        """Raises `UserError`."""
        shape, kind = self.arrays[0].shape, self.kind
        counts = {shape[1], shape[3]} if len(shape) == 4 else {1} if len(shape) == 3 else set()
        if kind.kind not in "biuf" or not counts & {1, 2, 3, 4}:
            raise UserError(
                f"{self.names[0]} is {kind} {list(shape)}. Pictures are numbers [N, H, W], [N, H, W, C] "
                "or [N, C, H, W] of 1 to 4 channels."
            )

    @property
    def kind(self) -> np.dtype:
        return self.arrays[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width."""
        return self.take(np.arange(1)).transpose(0, 3, 1, 2).shape[1:]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return pictures, [B, H, W, C]."""
        starts = np.cumsum([0, *map(len, self.arrays)])
        taken = np.empty((len(rows), *self.arrays[0].shape[1:]), self.kind)
        for array, start in zip(self.arrays, starts, strict=False):
            here = (rows >= start) & (rows < start + len(array))
            taken[here] = array[rows[here] - start]
        if taken.ndim == 3:
            return taken[..., None]
        return taken if taken.shape[3] <= 4 else taken.transpose(0, 2, 3, 1)

    def extent(self, rows: np.ndarray) -> list[float]:
        """Return the smallest and the largest number. NaN and infinite ones do not count."""
        low, high = np.inf, -np.inf
        for part in np.array_split(rows, math.ceil(len(rows) / 1024)):
            values = self.take(part).astype(np.float64)
            values = values[np.isfinite(values)]
            low, high = values.min(initial=low), values.max(initial=high)
        return [float(low), float(high)] if low < high else [0.0, 1.0]


def names_in(place: Path) -> list[str]:
    """Return the names of the arrays in a folder or a .npz file. Raises `UserError`."""
    if place.is_dir() and (names := sorted(path.stem for path in place.glob("*.npy"))):
        return names
    if place.suffix != ".npz" or not place.is_file():
        raise UserError(f"data.path={place} must be a folder of .npy files, or a .npz file.")
    try:
        with np.load(place) as file:
            return list(file.files)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{place} cannot be read: {error}. Save it again with np.savez.") from None


def array_of(known: Sequence[str], name: str, split: str) -> str | None:
    """Return the array `name` of a split. An array without a split is for training."""
    spelled = [made for alias in SPLITS[split] for made in (f"{name}_{alias}", f"{alias}_{name}")]
    return next((n for n in [*spelled, *([name] if split == "train" else [])] if n in known), None)


def as_classes(labels: np.ndarray) -> np.ndarray:
    """Return labels as [N], or as float32 [N, classes] of 0 and 1. Raises `UserError`."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    is_table = labels.ndim == 2 and labels.dtype.kind in "biuf" and np.isin(labels, (0, 1)).all()
    if is_table and (labels.sum(axis=1) == 1).all():
        return labels.argmax(axis=1)
    if is_table:
        return labels.astype(np.float32)
    is_whole = labels.dtype.kind in "biuU" or (labels.dtype.kind == "f" and (labels % 1 == 0).all())
    if labels.ndim != 1 or not is_whole:
        raise UserError(
            f"The labels are {labels.dtype} {list(labels.shape)}. Give a class for each picture, [N], "
            "as whole numbers or texts, or 0 and 1 for each class, [N, classes]."
        )
    return labels.astype(np.int64) if labels.dtype.kind in "bf" else labels


def held_out(
    rows: dict[str, np.ndarray], labels: np.ndarray, shares: Mapping[str, float], folds: Any
) -> dict[str, np.ndarray]:
    """Return the rows of each split. What has no array of its own is held out of each class."""
    kinds = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    missing = {split: share for split, share in shares.items() if split not in rows}
    splits, train = np.full(len(labels), "", "<U5"), rows["train"]
    for split, own in rows.items():
        splits[own] = split
    for number in np.unique(kinds[train]) if labels.ndim == 1 else [None]:
        own = train if number is None else train[kinds[train] == number]
        for index, split in hold_out(
            len(own), 0 if number is None else int(number), missing
        ).items():
            splits[own[index]] = split
    if folds:
        pool = np.flatnonzero((splits == "train") | (splits == "val"))
        for split, part in zip(("train", "val"), split_by_fold(kinds[pool], *folds), strict=True):
            splits[pool[part]] = split
    found = {split: np.flatnonzero(splits == split) for split in ("train", "val", "test")}
    if not len(found["train"]) or not len(found["val"]):
        raise UserError(
            "The arrays leave no picture for training or validation. Give at least 2 of a class."
        )
    return {split: own for split, own in found.items() if len(own)}


def bordered(pixels: np.ndarray, span: Sequence[float] | None, shift: int) -> np.ndarray:
    """Return pictures [N, H, W, C] as [N, C, H + 2·shift, W + 2·shift], uint8 or float32 from 0 to 255."""
    if span is not None:
        low, high = span
        shares = (np.nan_to_num(pixels.astype(np.float64), nan=low) - low) / (high - low)
        pixels = (255 * np.clip(shares, 0, 1)).astype(np.float32)
    edges = ((0, 0), (0, 0), (shift, shift), (shift, shift))
    return np.pad(pixels.transpose(0, 3, 1, 2), edges)
