"""Your own pictures and masks, in a pair of folders."""

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from ..engine.api import Data, UserError
from ..engine.datasets.pictures import (
    Decoding,
    check_decoding,
    covering,
    is_deep,
    measured,
    opened,
    size_of,
)
from ..engine.folds import split_by_fold
from ..engine.paths import files_below
from ..engine.rng import Permutation
from .shapes import normalise

UNKNOWN = -1
"""The class of pixels that no loss and no metric counts: ignored ones, and those around a picture."""

Pair = tuple[str, str]
"""The paths of a picture and its mask."""


class Folders(Data):
    """Pictures in `root/images/` and masks of the same names in `root/masks/`. `val_fraction` of them
    is held out. Or both folders in `root/train/`, `root/val/` and, if you have it, `root/test/`.
    With `folds`, the pairs that are not for the test are cut into so many parts, and part `fold` is for
    validation.

    A mask is a grey or palette picture of class numbers from 0. `ignored` and negative numbers are
    pixels without a class. A picture is scaled to fit into `size` (height, width); its mask, of the
    same aspect ratio, is scaled without mixing classes.

    `class_names`, by number, tell the number of classes. If it is null, all training masks are read.
    `range` and `background`: see `Decoding`. An "auto" range is that of the training pictures.
    With the `info` of a run, the folders are read when a split is asked for.
    """

    def __init__(
        self,
        root: str,
        size: int | list[int],
        ignored: int | None,
        class_names: list[str] | None,
        val_fraction: float,
        shift: int,
        flip: bool,
        folds: int | None = None,
        fold: int = 0,
        range: list[float] | str | None = None,
        background: str | None = None,
        info: Mapping[str, Any] | None = None,
        forgiving: bool = False,
    ) -> None:
        """forgiving: whether masks that cannot be read may be among the training masks."""
        sides = [size, size] if isinstance(size, int) else size
        if len(sides) != 2 or min(sides) < 1 or not 0 < val_fraction < 1 or shift < 0:
            raise UserError(
                f"data.size={size} must be pixels or [height, width], data.val_fraction="
                f"{val_fraction} above 0 and below 1, and data.shift={shift} at least 0."
            )
        check_decoding(range, background)
        self.root = Path(root).expanduser().absolute()
        self.ignored, self.val_fraction, self.folds, self.fold = ignored, val_fraction, folds, fold
        self.sides, self.shift, self.flip = (sides[0], sides[1]), shift, flip
        self.found: dict[str, list[Pair]] | None = None
        if info is None:
            names = class_names or self.numbers(forgiving)
            info = {"shape": (3, *self.sides), "classes": len(names), "class_names": names}
            if range is not None and not forgiving and (values := self.measured(range)):
                info["range"] = values
        self.info = dict(info)
        self.decoding = Decoding(self.info.get("range"), background)

    @property
    def pairs(self) -> dict[str, list[Pair]]:
        """The pictures and masks of each split. Raises `UserError`."""
        if self.found is None:
            splits = [split for split in ("train", "val", "test") if (self.root / split).is_dir()]
            # A run may be evaluated without training data.
            is_part = bool(self.info and splits) and self.folds is None and "train" not in splits
            if "train" in splits or is_part:
                self.found = {split: pairs_below(self.root / split) for split in splits}
            else:
                self.found = {"train": pairs_below(self.root)}
            if "val" not in self.found and not is_part:
                train = self.found["train"]
                count = min(max(1, round(self.val_fraction * len(train))), len(train) - 1)
                # The same split in every run: its key is a constant, not the run's seed.
                held = set(Permutation(len(train), key=0).slice(0, count).tolist())
                self.found["val"] = [train[index] for index in sorted(held)]
                self.found["train"] = [p for i, p in enumerate(train) if i not in held]
            if not self.found.get("val", True):
                raise UserError(f"{self.root} has no picture for validation. Give it at least 2.")
            if self.folds is not None:
                rest = sorted(self.found["train"] + self.found["val"])
                parts = split_by_fold(np.zeros(len(rest)), self.folds, self.fold)
                for name, part in zip(("train", "val"), parts, strict=True):
                    self.found[name] = [rest[index] for index in part]
        return self.found

    def numbers(self, forgiving: bool) -> list[str]:
        """Return the numbers of the classes in training masks. Raises `UserError`."""

        def largest(pair: Pair) -> int:
            with contextlib.suppress(*[UserError] * forgiving):
                return int(self.read_mask(pair[1]).max(initial=UNKNOWN))
            return UNKNOWN

        with ThreadPoolExecutor() as pool:
            known = self.pairs["train"] + (self.pairs["val"] if self.folds is not None else [])
            classes = 1 + max(pool.map(largest, known))
        if classes < 2 and not forgiving:
            raise UserError(
                f"The masks have no class besides 0. The number {self.ignored} is none (data.ignored). "
                "Save class numbers from 0, such as 0 and 1."
            )
        return [str(number) for number in range(classes)]

    def measured(self, wanted: list[float] | str) -> list[float] | None:
        """Return the range of training pictures of more than 8 bits, or None. Raises `UserError`."""
        paths = [path for path, _ in self.pairs["train"]]
        deep = []
        for path in paths[:: len(paths) // 500 + 1]:
            with opened(path) as file:
                deep += [path] if is_deep(file) else []
        return measured(paths, deep, wanted)

    def split(self, name: str) -> Dataset | None:
        if name not in self.pairs:
            return None
        is_train = name == "train"
        return Masks(self, self.pairs[name], self.shift if is_train else 0, is_train and self.flip)

    def files(self, paths: Sequence[str]) -> Dataset:
        return Pictures(self, paths)

    def fingerprint(self) -> str:
        """Hash the names and sizes of all files."""
        digest = hashlib.sha256()
        for path in (path for own in self.pairs.values() for pair in own for path in pair):
            name = os.path.relpath(path, self.root)
            digest.update(os.fsencode(f"{name}\0{os.path.getsize(path)}\n"))
        return digest.hexdigest()[:16]

    def read_mask(self, path: str) -> np.ndarray:
        """Return class numbers, int64 [H, W], or UNKNOWN. Raises `UserError`."""
        with opened(path) as file:
            if file.mode not in ("1", "L", "P") and not file.mode.startswith("I"):
                raise UserError(
                    f"The mask {path} has colours ({file.mode}). Save class numbers as a grey or "
                    "palette PNG."
                )
            numbers = np.array(file, dtype=np.int64)
        numbers[(numbers < 0) | (numbers == self.ignored)] = UNKNOWN
        return numbers


class Masks(Dataset):
    """Pictures and masks that loader workers read from files."""

    def __init__(self, data: Folders, pairs: Sequence[Pair], shift: int, flip: bool) -> None:
        self.data, self.pairs, self.shift, self.flip = data, pairs, shift, flip

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return image, float32 [3, H, W], and mask, int64 [H, W], moved and mirrored alike."""
        path, mask_path = self.pairs[index]
        image, (height, width), size = fitting(path, self.data.sides, self.data.decoding)
        numbers = self.data.read_mask(mask_path)
        classes, (rows, columns) = self.data.info["classes"], numbers.shape
        if numbers.max(initial=0) >= classes:
            raise UserError(
                f"The mask {mask_path} has class {numbers.max()}, but there are {classes} classes from "
                "0. Name all in data.class_names, or set data.ignored to the number that is none."
            )
        # The smaller of both may be rounded by a pixel.
        if abs(rows * size[1] - columns * size[0]) > max(*size, rows, columns):
            raise UserError(
                f"The mask {mask_path} has {rows}×{columns} pixels, but its picture {size[0]}×{size[1]}. "
                "Give them the same height and width, or the same aspect ratio."
            )
        small = Image.fromarray(numbers.astype(np.int32)).resize(
            (width, height), Image.Resampling.NEAREST
        )
        mask = torch.full(self.data.sides, UNKNOWN)
        mask[:height, :width] = torch.from_numpy(np.array(small))
        if self.shift:  # the engine has set torch's generator to the key of this sample
            down, right = torch.randint(-self.shift, self.shift + 1, (2,)).tolist()
            image, mask = moved(image, down, right, 0), moved(mask, down, right, UNKNOWN)
        if self.flip and torch.rand(()) < 0.5:
            image, mask = image.flip(-1), mask.flip(-1)
        return normalise(image), mask


class Pictures(Dataset):
    """Pictures without masks, and their sizes."""

    def __init__(self, data: Folders, paths: Sequence[str]) -> None:
        self.data, self.paths = data, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return image, float32 [3, H, W], mask, int64 [H, W], and height and width of the file."""
        image, _, size = fitting(self.paths[index], self.data.sides, self.data.decoding)
        return normalise(image), torch.full(self.data.sides, UNKNOWN), torch.tensor(size)


def pairs_below(folder: Path) -> list[Pair]:
    """Return the pictures in `folder/images/` with their masks. Raises `UserError`."""
    images, masks = folder / "images", folder / "masks"
    for place in (images, masks):
        if not place.is_dir():
            raise UserError(f"The folder {place} does not exist. Set data.root=PATH.")
    found = {stem(path, masks): path for path in files_below(masks, Data.endings)}
    paths = files_below(images, Data.endings)
    if not paths:
        raise UserError(f"{images} has no pictures: {', '.join(Data.endings)}.")
    for path in paths:
        if stem(path, images) not in found:
            raise UserError(
                f"{path} has no mask of its name in {masks}. Add it, or move the picture."
            )
    return [(path, found[stem(path, images)]) for path in paths]


def stem(path: str, folder: Path) -> str:
    return os.path.splitext(os.path.relpath(path, folder))[0]


def fitted(height: int, width: int, sides: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of a picture that is scaled to fit into `sides`."""
    scale = min(sides[0] / height, sides[1] / width)
    return max(1, round(scale * height)), max(1, round(scale * width))


def fitting(
    path: str, sides: tuple[int, int], decoding: Decoding
) -> tuple[Tensor, tuple[int, int], tuple[int, int]]:
    """Return a picture in the top left of a black canvas, its size there, and its size in the file.

    The canvas is uint8 [3, H, W], or float32 from 0 to 255 for a picture of more than 8 bits.
    """
    with opened(path) as file:
        size = size_of(file)
    height, width = fitted(*size, sides)
    pixels = torch.from_numpy(np.array(covering(path, 3, height, width, decoding)))
    image = torch.zeros(3, *sides, dtype=pixels.dtype)
    image[:, :height, :width] = torch.atleast_3d(pixels[:height, :width]).movedim(-1, 0)
    return image, (height, width), size


def moved(picture: Tensor, down: int, right: int, value: int) -> Tensor:
    """Return [..., H, W] moved by so many pixels; `value` comes in from outside."""
    height, width = picture.shape[-2:]
    edges = (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0))
    padded = functional.pad(picture, edges, value=value)
    top, left = max(-down, 0), max(-right, 0)
    return padded[..., top : top + height, left : left + width]


def in_file_sizes(masks: Tensor, sizes: Tensor | None = None) -> list[Tensor]:
    """Return masks [B, H, W] of pictures from `fitting`, each [H, W] in the size of its file.

    sizes: int64 [B, 2], height and width. None: the masks stay as they are.
    """
    if sizes is None:
        return list(masks)
    found = []
    for mask, (height, width) in zip(masks, sizes.tolist(), strict=True):
        own = fitted(height, width, (mask.shape[0], mask.shape[1]))
        rows = ((torch.arange(height) + 0.5) * (own[0] / height)).long()
        columns = ((torch.arange(width) + 0.5) * (own[1] / width)).long()
        found.append(mask[rows][:, columns])
    return found
