"""Windows cut from pictures: what a sample looks like follows from its key alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..api import Data
from ..errors import UserError
from .pictures import covering

Sample = tuple[str, int]
"""Path and class number; -1 if the class is unknown."""


@dataclass(eq=False, repr=False)
class Windows(Dataset[Any]):
    """Pictures from which training cuts windows. A subclass defines `cut`.

    It is a `BatchDataset` (see api.py). Integer arithmetic on a sample's key decides what happens to
    the sample, so no generator needs a seed.
    """

    labels: Tensor  # int64, [N]
    shape: tuple[int, int, int]  # channels, height and width of a window
    shift: tuple[int, int]  # pixels that a window may lie beside the middle, down and right
    flip: bool  # mirror half of the pictures left to right
    offset: Tensor  # see `normalisation`
    scale: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return the image, float32 [C, H, W], and the label. torch's generator gives the key."""
        key = np.zeros(1, np.uint64)
        if self.flip or self.shift != (0, 0):
            key = torch.randint(-(1 << 63), (1 << 63) - 1, (1,)).numpy().view(np.uint64)
        images, labels = self.batch(np.array([index]), key)
        return images[0], int(labels[0])

    def batch(self, indices: np.ndarray, keys: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return images, float32 [B, C, H, W], and labels, int64 [B]."""
        down, right, mirrored = self.draw(keys)
        images = self.cut(indices, down, right)
        chosen = np.flatnonzero(mirrored)
        if len(chosen):
            images[chosen] = torch.from_numpy(images.take(chosen, axis=0)).flip(-1).numpy()
        labels = self.labels[torch.from_numpy(indices)]
        return normalise(torch.from_numpy(images), self.offset, self.scale), labels

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return for each key (uint64 [B]) the window's place, from 0 to 2·shift down and right, and
        whether the picture is mirrored (0 or 1)."""
        # Bits 1 to 31 of a key decide how far down, 32 to 63 how far right, bit 0 whether mirrored.
        down, right = (np.uint64(2 * most + 1) for most in self.shift)
        return (
            ((keys & np.uint64(0xFFFFFFFE)) * down) >> np.uint64(32),
            ((keys >> np.uint64(32)) * right) >> np.uint64(32),
            keys & np.uint64(self.flip),
        )

    def files(self, paths: Sequence[str]) -> Dataset[Any]:
        """Return pictures from files, scaled and normalised like these, with the label -1."""
        samples = [(path, -1) for path in paths]
        return PictureFiles(samples, self.shape, (0, 0), False, self.offset, self.scale)

    def cut(self, indices: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return the window of each picture at row `down` and column `right`: uint8 [B, C, H, W].

        A subclass defines this, or `batch` itself.
        """
        raise NotImplementedError


class PictureFiles(Windows):
    """Pictures that loader workers read from files, each time a batch needs them.

    A picture is scaled to cover height × width, and cut.
    """

    in_workers = True
    interpolation = "bilinear"

    def __init__(self, samples: Sequence[Sample], *options: Any) -> None:
        """`options`: those of `Windows`, from `shape` on."""
        super().__init__(torch.tensor([label for _, label in samples], dtype=torch.int64), *options)
        self.samples = samples

    def cut(self, indices: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        _, height, width = self.shape
        images = np.empty((len(indices), *self.shape), np.uint8)
        places = zip(indices.tolist(), down.tolist(), right.tolist(), strict=True)
        for image, (index, y, x) in zip(images, places, strict=True):
            image[:] = self.canvas(index)[:, y : y + height, x : x + width]
        return images

    def canvas(self, index: int) -> np.ndarray:
        """Return the part of a picture that windows can show: uint8 [C, H + 2·down, W + 2·right]."""
        channels, height, width = self.shape
        image = covering(self.samples[index][0], channels, height, width)
        height, width = height + 2 * self.shift[0], width + 2 * self.shift[1]
        top, left = int((image.height - height) / 2), int((image.width - width) / 2)
        # Around a smaller picture, the canvas is black.
        image = image.crop((left, top, left + width, top + height))
        return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)


class PictureData(Data):
    """Data whose splits are pictures."""

    splits: Mapping[str, Windows]
    still: Windows
    """An example of how validation prepares pictures. It may hold none."""

    def split(self, name: str) -> Dataset[Any] | None:
        return self.splits.get(name)

    def files(self, paths: Sequence[str]) -> Dataset[Any]:
        return self.still.files(paths)


def normalise(images: Tensor, offset: Tensor, scale: Tensor) -> Tensor:
    """Return (byte - offset) * scale of uint8 [B, C, H, W], as float32 of the same shape."""
    if images.shape[1] == 1:  # with strides that mean NHWC too, which convolutions may choose
        images = images[:, 0, :, :, None].permute(0, 3, 1, 2)
    # Two roundings: a fused multiply-add, which torch uses for some places of a batch only, would
    # give a sample other bits in another batch.
    return images.to(torch.float32).sub_(offset).mul_(scale)


def normalisation(
    mean: float | Sequence[float], std: float | Sequence[float], channels: int
) -> tuple[Tensor, Tensor]:
    """Return `offset` and `scale`, float32 [C or 1, 1, 1], for which (byte - offset) * scale is
    (byte / 255 - mean) / std. Raises `UserError`.
    """
    offset, spread = (
        255 * torch.tensor(value, dtype=torch.float64).reshape(-1, 1, 1) for value in (mean, std)
    )
    if not {len(offset), len(spread)} <= {1, channels}:
        raise UserError(f"data.mean={mean} and data.std={std} must have 1 or {channels} values.")
    if not (spread > 0).all():
        raise UserError(f"data.std={std} must be above 0.")
    return offset.float(), (1 / spread).float()
