"""Images that fit in memory: a batch is cut, mirrored and normalised at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError
from ..rng import mix_array
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
        height, width, channels = images.shape[1:]
        if not 0 <= shift < min(height, width):
            raise UserError(
                f"data.shift={shift} must be from 0 to less than the pictures' {height}×{width} "
                "pixels."
            )
        self.mean, self.std = (
            _per_channel(v, channels, n) for v, n in ((mean, "mean"), (std, "std"))
        )
        if (self.std <= 0).any():
            raise UserError(f"data.std={std} must be above 0.")
        self.labels = torch.from_numpy(np.ascontiguousarray(labels, dtype=np.int64))
        self.shift, self.flip = shift, flip
        # Padding once makes a shifted picture a window of a larger one: no copy but the last.
        border = ((0, 0), (shift, shift), (shift, shift), (0, 0))
        self.padded = np.pad(images, border) if shift else np.ascontiguousarray(images)
        self.windows = np.lib.stride_tricks.sliding_window_view(
            self.padded, (height, width, channels), axis=(1, 2, 3)
        )[:, :, :, 0]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """A sample as it is, without augmentation: image float32 [C, H, W], label."""
        image = self.windows[index, self.shift, self.shift]
        return self._normalise(np.array(image[None]))[0], int(self.labels[index])

    def batch(self, indices: np.ndarray, keys: np.ndarray) -> tuple[Tensor, Tensor]:
        """images float32 [B, C, H, W], labels int64 [B]."""
        down = right = np.full(len(indices), self.shift)
        if self.shift:
            places = np.uint64(2 * self.shift + 1)
            down = (mix_array(1, keys) % places).astype(np.int64)
            right = (mix_array(2, keys) % places).astype(np.int64)
        images = self.windows[indices, down, right]
        if self.flip:
            mirrored = (mix_array(3, keys) & np.uint64(1)).astype(bool)
            images[mirrored] = images[mirrored, :, ::-1]
        return self._normalise(images), self.labels[torch.from_numpy(indices)]

    def files(self, paths: Sequence[str]) -> Dataset[Any]:
        """Pictures from files, scaled to the size of these and normalised like them; label -1."""
        return _Files(paths, self)

    def _normalise(self, images: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
        tensor = tensor.to(torch.float32, memory_format=torch.contiguous_format)
        return tensor.sub_(255 * self.mean).mul_(1 / (255 * self.std))


class _Files(Dataset[Any]):
    def __init__(self, paths: Sequence[str], images: ArrayImages) -> None:
        self.paths, self.images = paths, images

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        height, width, channels = self.images.windows.shape[3:]
        pixels = read(self.paths[index], channels, height, width)
        top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
        pixels = pixels[top : top + height, left : left + width]
        return self.images._normalise(np.array(pixels)[None])[0], -1


def _per_channel(value: float | Sequence[float], channels: int, name: str) -> Tensor:
    """`value` as float32 of shape [channels, 1, 1] or [1, 1, 1]. Raises `UserError`."""
    values = torch.tensor(value, dtype=torch.float32).reshape(-1, 1, 1)
    if len(values) not in (1, channels):
        raise UserError(
            f"data.{name}={value} has {len(values)} values, but the pictures have {channels} channels."
        )
    return values
