"""Generated shapes with a class for each pixel: a small example of a data set."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from ..engine.api import Data, UserError
from ..engine.datasets.pictures import read
from ..engine.folds import split_by_fold

NAMES = ("background", "disc", "box", "triangle")


class Shapes(Data):
    """Pictures of one to three discs, boxes and triangles on a textured ground, with noise.

    Pictures are `side` pixels wide and high. The training split has `size` pictures, the
    validation and test splits a fifth of that each. They do not depend on the run's seed. With `folds`,
    the pictures of training and validation are cut into so many parts, and part `fold` is for validation.
    """

    def __init__(
        self,
        side: int,
        size: int,
        shift: int,
        flip: bool,
        folds: int | None = None,
        fold: int = 0,
    ) -> None:
        if side < 16 or size < 5 or shift < 0:
            raise UserError(
                f"data.side={side} must be at least 16, data.size={size} at least 5 and "
                f"data.shift={shift} at least 0."
            )
        self.info = {"shape": (3, side, side), "classes": len(NAMES), "class_names": list(NAMES)}
        self.side, self.size, self.shift, self.flip = side, size, shift, flip
        self.folds, self.fold = folds, fold

    def split(self, name: str) -> Dataset:
        is_train = name == "train"
        if self.folds is None or name == "test":
            return self.drawn(name, self.shift if is_train else 0, is_train)
        pool: Dataset = ConcatDataset(
            [self.drawn(own, self.shift, is_train) for own in ("train", "val")]
        )
        train, val = split_by_fold(np.zeros(self.size + self.size // 5), self.folds, self.fold)
        return Subset(pool, (train if is_train else val).tolist())

    def drawn(self, name: str, border: int, is_train: bool) -> Dataset:
        count = self.size if name == "train" else self.size // 5
        seed = ("train", "val", "test").index(name)
        images, masks = draw(count, self.side + 2 * border, seed)
        if not is_train:
            middle = slice(border, border + self.side)
            images, masks = images[..., middle, middle], masks[..., middle, middle]
        return Masked(images, masks, self.side, self.flip and is_train)

    def files(self, paths: Sequence[str]) -> Dataset:
        return Files(paths, self.side)


class Masked(Dataset):
    """Pictures and masks in memory. A sample is a window of `side` by `side` pixels."""

    def __init__(self, images: Tensor, masks: Tensor, side: int, flip: bool) -> None:
        """images: uint8 [N, 3, H, W]; masks: uint8 [N, H, W]."""
        self.images, self.masks, self.side, self.flip = images, masks, side, flip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return image, float32 [3, H, W], and mask, int64 [H, W], moved and mirrored alike."""
        # The engine has set torch's generator to the key of this sample in this epoch.
        top, left = torch.randint(self.images.shape[-1] - self.side + 1, (2,)).tolist()
        window = (..., slice(top, top + self.side), slice(left, left + self.side))
        image, mask = self.images[index][window], self.masks[index][window]
        for axis in (-1, -2):
            if self.flip and torch.rand(()) < 0.5:
                image, mask = image.flip(axis), mask.flip(axis)
        return normalise(image), mask.long()


class Files(Dataset):
    """Your pictures, scaled and cut to `side` by `side` pixels. Their masks are unknown: -1."""

    def __init__(self, paths: Sequence[str], side: int) -> None:
        self.paths, self.side = paths, side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(read(self.paths[index], 3, self.side, self.side).copy())
        top, left = ((length - self.side) // 2 for length in pixels.shape[:2])
        image = pixels.movedim(-1, 0)[:, top : top + self.side, left : left + self.side]
        return normalise(image), torch.full((self.side, self.side), -1)


def normalise(image: Tensor) -> Tensor:
    return (image.float() - 127.5) / 64


def draw(count: int, side: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return images, uint8 [count, 3, side, side], and masks, uint8 [count, side, side]."""
    random = np.random.default_rng(seed)
    images = 128 + 16 * texture(random, count, side)
    masks = np.zeros((count, side, side), np.uint8)
    rows, columns = np.mgrid[:side, :side]
    for image, mask in zip(images, masks, strict=True):
        for kind in random.integers(1, 4, random.integers(1, 4)):
            y, x = random.uniform(0.1, 0.9, 2) * side
            radius = random.uniform(0.15, 0.3) * side
            inside = contains(kind, (rows - y) / radius, (columns - x) / radius)
            mask[inside] = kind
            colour = 128 + random.choice([-1, 1], 3) * random.uniform(30, 90, 3)
            image[:, inside] = colour[:, None]
    images += random.normal(0, 8, images.shape).astype(np.float32)
    return torch.from_numpy(images.clip(0, 255).astype(np.uint8)), torch.from_numpy(masks)


def contains(kind: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return whether points lie inside a disc (1), box (2) or triangle (3) around the origin."""
    if kind == 1:
        return y**2 + x**2 < 1
    if kind == 2:
        return np.maximum(abs(y), abs(x)) < 0.85
    return (y < 0.7) & (2 * abs(x) < y + 1.1)


def texture(random: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Return smooth noise of three grain sizes, float32 [count, 3, side, side], with mean 0."""
    total = torch.zeros(count, 3, side, side)
    for grain in (4, 8, 16):
        coarse = random.normal(size=(count, 3, side // grain + 2, side // grain + 2))
        noise = torch.from_numpy(coarse.astype(np.float32))
        total += nn.functional.interpolate(noise, (side, side), mode="bilinear")
    return total.numpy()
