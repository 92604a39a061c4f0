"""Images that fit in memory: a batch is cut, mirrored and normalised at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError
from .pictures import read


class ArrayImages(Dataset[Any]):
    """Images and labels in memory, with augmentation for training.

    images: uint8, shape [N, H, W, C]; labels: int64, shape [N]. `shift` moves a picture by up to so
    many pixels in each direction (what comes into view is black), `flip` mirrors half of the
    pictures left to right. A pixel becomes (pixel / 255 - mean) / std.

    It is a `BatchDataset` (see api.py): what happens to a sample follows from the sample's key
    alone, by integer arithmetic, so no generator has to be seeded.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        mean: float | Sequence[float],
        std: float | Sequence[float],
        shift: int = 0,
        flip: bool = False,
    ) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(labels):
            raise UserError(
                "ArrayImages takes uint8 images of shape [N, H, W, C] and N labels, not "
                f"{len(labels)} labels and {images.dtype} images of shape {list(images.shape)}."
            )
        height, width, channels = images.shape[1:]
        if not 0 <= shift < min(height, width):
            raise UserError(
                f"data.shift={shift} must be from 0 to less than the pictures' {height}×{width} "
                "pixels."
            )
        self.offset, self.scale = normalisation(mean, std, channels)
        self.labels = torch.from_numpy(np.ascontiguousarray(labels, dtype=np.int64))
        self.shape, self.shift, self.flip = (height, width, channels), shift, flip
        # Padded once, a shifted picture is a window of a larger one: no copy but the last.
        border = ((0, 0), (shift, shift), (shift, shift), (0, 0))
        self.padded = np.pad(images, border) if shift else np.ascontiguousarray(images)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """A sample as it is, without augmentation: image float32 [C, H, W], label."""
        middle = np.array([self.shift])
        image = self._cut(np.array([index]), middle, middle)
        return self._normalise(image)[0], int(self.labels[index])

    def batch(self, indices: np.ndarray, keys: np.ndarray) -> tuple[Tensor, Tensor]:
        """images float32 [B, C, H, W], labels int64 [B]."""
        # Bits 1 to 31 of a key say how far down, 32 to 63 how far right, bit 0 whether mirrored.
        places = np.uint64(2 * self.shift + 1)
        down = ((keys & np.uint64(0xFFFFFFFE)) * places) >> np.uint64(32)
        right = ((keys >> np.uint64(32)) * places) >> np.uint64(32)
        images = self._cut(indices, down, right)
        if self.flip:
            mirrored = (keys & np.uint64(1)).astype(bool)
            images[mirrored] = images[mirrored, ..., ::-1]
        return self._normalise(images), self.labels[torch.from_numpy(indices)]

    def _cut(self, indices: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        """uint8 [B, C, H, W]: of each padded picture the window at row `down`, column `right`."""
        height, width, channels = self.shape
        sample, row, pixel, _ = self.padded.strides
        # One row of a window is one element of an array that overlaps itself, so that rows, not
        # bytes, are copied. A view made for each batch: kept, pickle would write it out in full.
        windows = np.ndarray(
            (len(self), 2 * self.shift + 1, 2 * self.shift + 1, height),
            np.dtype((np.void, width * channels)),
            self.padded,
            strides=(sample, row, pixel, row),
        )
        rows = windows[indices, down, right].view(np.uint8)
        images = rows.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(images)

    def files(self, paths: Sequence[str]) -> Dataset[Any]:
        """Pictures from files, scaled to the size of these and normalised like them; label -1."""
        return _Files(paths, self)

    def _normalise(self, images: np.ndarray) -> Tensor:
        # In two roundings: a fused multiply-add, used in some places of a batch and not in others,
        # would give a sample other bits in another batch.
        return torch.from_numpy(images).to(torch.float32).sub_(self.offset).mul_(self.scale)


class _Files(Dataset[Any]):
    def __init__(self, paths: Sequence[str], images: ArrayImages) -> None:
        self.paths, self.images = paths, images

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        height, width, channels = self.images.shape
        pixels = read(self.paths[index], channels, height, width)
        top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
        pixels = pixels[top : top + height, left : left + width]
        images = np.array(pixels.transpose(2, 0, 1)[None], order="C")
        return self.images._normalise(images)[0], -1


def normalisation(
    mean: float | Sequence[float], std: float | Sequence[float], channels: int
) -> tuple[Tensor, Tensor]:
    """`offset` and `scale`, float32 [C or 1, 1, 1]: (byte - offset) * scale is
    (byte / 255 - mean) / std. Raises `UserError`.
    """
    values = []
    for name, value in (("mean", mean), ("std", std)):
        values.append(255 * torch.tensor(value, dtype=torch.float64).reshape(-1, 1, 1))
        if len(values[-1]) not in (1, channels):
            raise UserError(
                f"data.{name}={value} has {len(values[-1])} values, but the pictures have "
                f"{channels} channels."
            )
    if not (values[1] > 0).all():
        raise UserError(f"data.std={std} must be above 0.")
    return values[0].float(), (1 / values[1]).float()
