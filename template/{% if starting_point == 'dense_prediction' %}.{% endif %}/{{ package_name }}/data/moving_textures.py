"""Generated pairs of pictures whose pixels have moved: a small example of a data set."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from ..engine.api import Data, UserError
from ..engine.datasets.pictures import read
from ..engine.folds import split_by_fold


class Pair(NamedTuple):
    """A sample. A batch has one more dimension, before the others."""

    first: Tensor
    """float32 [C, H, W]."""
    second: Tensor
    """float32 [C, H, W]."""
    flow: Tensor
    """float32 [2, H, W]: the motion of each pixel of `first`, in pixels to the right and down."""
    valid: Tensor
    """bool [H, W]: whether the pixel is still in view in `second`."""


class MovingTextures(Data):
    """Smooth random textures with a smooth random motion.

    Pictures are `side` pixels wide and high. The training split has `size` pairs, the
    validation and test splits a fifth of that each. They do not depend on the run's seed. With `folds`,
    the pairs of training and validation are cut into so many parts, and part `fold` is for validation.
    """

    def __init__(
        self,
        side: int,
        size: int,
        motion: float,
        flip: bool,
        folds: int | None = None,
        fold: int = 0,
    ) -> None:
        if side < 16 or size < 5 or motion <= 0:
            raise UserError(
                f"data.side={side} must be at least 16, data.size={size} at least 5 and "
                f"data.motion={motion} above 0."
            )
        self.info = {"shape": (3, side, side)}
        self.side, self.size, self.motion, self.flip = side, size, motion, flip
        self.folds, self.fold = folds, fold

    def split(self, name: str) -> Dataset:
        is_train = name == "train"
        if self.folds is None or name == "test":
            return self.drawn(name, self.flip and is_train)
        pool: Dataset = ConcatDataset(
            [self.drawn(own, self.flip and is_train) for own in ("train", "val")]
        )
        train, val = split_by_fold(np.zeros(self.size + self.size // 5), self.folds, self.fold)
        return Subset(pool, (train if is_train else val).tolist())

    def drawn(self, name: str, flip: bool) -> Dataset:
        count = self.size if name == "train" else self.size // 5
        seed = ("train", "val", "test").index(name)
        return Pairs(draw(count, self.side, self.motion, seed), flip)

    def files(self, paths: Sequence[str]) -> Dataset:
        return Frames(paths, self.side)


class Pairs(Dataset):
    """Pairs in memory. `pairs` holds all pairs as one batch."""

    def __init__(self, pairs: Pair, flip: bool) -> None:
        self.pairs, self.flip = pairs, flip

    def __len__(self) -> int:
        return len(self.pairs.first)

    def __getitem__(self, index: int) -> Pair:
        pair = Pair(*(tensor[index] for tensor in self.pairs))
        # The engine has set torch's generator to the key of this sample in this epoch.
        for axis in (-1, -2):
            if self.flip and torch.rand(()) < 0.5:
                pair = mirror(pair, axis)
        return pair


class Frames(Dataset):
    """Your pictures, scaled and cut to `side` by `side` pixels.

    A sample is a picture and the next one. Their motion is unknown, so no pixel is valid.
    """

    def __init__(self, paths: Sequence[str], side: int) -> None:
        if len(paths) < 2:
            raise UserError("Motion needs two pictures. Name two or more, or their folder.")
        self.paths, self.side = paths, side
        self.names = paths[:-1]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Pair:
        unknown = torch.zeros(2, self.side, self.side), torch.zeros(self.side, self.side).bool()
        return Pair(self.picture(index), self.picture(index + 1), *unknown)

    def picture(self, index: int) -> Tensor:
        pixels = torch.from_numpy(read(self.paths[index], 3, self.side, self.side).copy())
        top, left = ((length - self.side) // 2 for length in pixels.shape[:2])
        window = pixels[top : top + self.side, left : left + self.side]
        return (window.movedim(-1, 0).float() - 128) / 64


def mirror(pair: Pair, axis: int) -> Pair:
    """Mirror left to right (axis -1) or upside down (-2). The motion changes its sign, too."""
    flipped = Pair(*(tensor.flip(axis) for tensor in pair))
    flipped.flow[0 if axis == -1 else 1].neg_()
    return flipped


def draw(count: int, side: int, motion: float, seed: int) -> Pair:
    """Return `count` pairs. The first picture reads its pixels from the second."""
    random = np.random.default_rng(seed)
    grains = [smooth(random, (count, 3, side, side), grain) for grain in (3, 6, 12)]
    second = torch.stack(grains).sum(dim=0) / 2
    flow = motion * smooth(random, (count, 2, side, side), side // 2)
    place = torch.arange(side)
    x, y = place + flow[:, 0], place[:, None] + flow[:, 1]
    valid = (x >= 0) & (x <= side - 1) & (y >= 0) & (y <= side - 1)
    return Pair(warp(second, flow), second, flow, valid)


def smooth(random: np.random.Generator, shape: tuple[int, ...], grain: int) -> Tensor:
    """Return noise of mean 0 that changes over `grain` pixels, float32 of `shape` [B, C, H, W]."""
    batch, channels, height, width = shape
    coarse = random.normal(size=(batch, channels, height // grain + 3, width // grain + 3))
    noise = torch.from_numpy(coarse.astype(np.float32))
    return nn.functional.interpolate(noise, (height, width), mode="bicubic")


def warp(pictures: Tensor, flow: Tensor) -> Tensor:
    """Read each pixel at the place to which it moves, with bilinear interpolation.

    pictures: float [B, C, H, W]; flow: float [B, 2, H, W], in pixels to the right and down. Places
    outside of the picture read the pixel of the border. Gradients reach `flow` only. grid_sample
    computes the same, but its gradient is not deterministic on a GPU.
    """
    batch, channels, height, width = pictures.shape
    x = torch.arange(width, device=flow.device) + flow[:, 0].float()
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1].float()
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    # If a diverging model predicts NaN, the result is NaN, but the place to read must still exist.
    left = x.detach().nan_to_num().floor().clamp(max=width - 2)
    top = y.detach().nan_to_num().floor().clamp(max=height - 2)
    a, b = (x - left)[:, None], (y - top)[:, None]
    flat = pictures.detach().float().flatten(2)
    corner = (top * width + left).long().flatten(1)[:, None].expand(-1, channels, -1)

    def at(offset: int) -> Tensor:
        return flat.gather(2, corner + offset).view(batch, channels, height, width)

    upper = at(0) * (1 - a) + at(1) * a
    lower = at(width) * (1 - a) + at(width + 1) * a
    return upper * (1 - b) + lower * b
