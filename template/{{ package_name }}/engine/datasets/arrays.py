"""Pictures in memory: a batch is cut, mirrored and normalised at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError
from .windows import Windows, draw_windows, normalisation, normalise


class Canvases(Windows):
    """Pictures in memory, each in the middle of a canvas, which is larger by the shift.

    canvases: uint8, shape [N, C, H + 2·down, W + 2·right]; labels: int64, shape [N]. The other
    options are those of `Windows`.
    """

    def __init__(
        self,
        canvases: np.ndarray,
        labels: np.ndarray,
        shift: tuple[int, int],
        flip: bool,
        offset: Tensor,
        scale: Tensor,
    ) -> None:
        channels, height, width = canvases.shape[1:]
        shape = (channels, height - 2 * shift[0], width - 2 * shift[1])
        kept = torch.from_numpy(np.ascontiguousarray(labels, dtype=np.int64))
        super().__init__(kept, shape, shift, flip, offset, scale)
        self.canvases = canvases
        self.sample_bytes = 4 * shape[0] * shape[1] * shape[2]

    def cut(self, indices: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return the window of each canvas at row `down` and column `right`: uint8 [B, C, H, W]."""
        if self.shift == (0, 0):
            return self.canvases.take(indices, axis=0)
        channels, height, width = self.shape
        sample, channel, row, pixel = self.canvases.strides
        # In this array, which overlaps itself, one element is one row of a window. So numpy copies
        # rows, not bytes. Each batch makes the view anew, because pickle would write it out in full.
        windows = np.ndarray(
            (len(self), 2 * self.shift[0] + 1, 2 * self.shift[1] + 1, channels, height),
            np.dtype((np.void, width)),
            self.canvases,
            strides=(sample, row, pixel, channel, row),
        )
        rows = windows[indices, down, right].view(np.uint8)
        return rows.reshape(-1, channels, height, width)

    def to(self, device: torch.device) -> OnDevice:
        """Return the same data set on `device`, which makes the batches."""
        return OnDevice(self, device)


class ArrayImages(Canvases):
    """Images and labels in memory, with augmentation for training.

    images: uint8, shape [N, H, W, C]; labels: int64, shape [N]. `shift` moves a picture by up to so
    many pixels in each direction; its surroundings are black. `flip` mirrors half of the pictures
    left to right. A pixel becomes (pixel / 255 - mean) / std.
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
                f"ArrayImages got {images.dtype} images of shape {list(images.shape)} and "
                f"{len(labels)} labels. It needs uint8 images of shape [N, H, W, C] and N labels."
            )
        count, height, width, channels = images.shape
        if not 0 <= shift < min(height, width):
            raise UserError(f"data.shift={shift} must be from 0 to {min(height, width) - 1}.")
        offset, scale = normalisation(mean, std, channels)
        # With a border, a shifted picture is a window of its canvas: a batch is one copy.
        canvases = np.zeros((count, channels, height + 2 * shift, width + 2 * shift), np.uint8)
        middle = (slice(shift, shift + height), slice(shift, shift + width))
        canvases[:, :, *middle] = images.transpose(0, 3, 1, 2)
        super().__init__(canvases, labels, (shift, shift), flip, offset, scale)


class OnDevice(Dataset[Any]):
    """`Canvases` on a GPU. A batch sends 32 bytes per sample: its number and its draws.

    Its batches equal those of `Canvases` bit for bit: the host draws, and pixels are integers until
    the same subtraction and multiplication.
    """

    def __init__(self, source: Canvases, device: torch.device) -> None:
        self.shift, self.flip, self.sample_bytes = source.shift, source.flip, source.sample_bytes
        self.canvases = torch.from_numpy(source.canvases).to(device)
        self.labels = source.labels.to(device)
        self.offset, self.scale = source.offset.to(device), source.scale.to(device)
        # The indices of a window's rows, columns and channels, shaped as in [B, C, H, W].
        channels, height, width = source.shape
        self.rows = torch.arange(height, device=device).view(1, 1, -1, 1)
        self.columns = torch.arange(width, device=device).view(1, 1, 1, -1)
        self.channels = torch.arange(channels, device=device).view(1, -1, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: np.ndarray, keys: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return images, float32 [B, C, H, W], and labels, int64 [B], on the device."""
        drawn = np.stack([indices, *draw_windows(keys, self.shift, self.flip)]).astype(np.int64)
        numbers = torch.from_numpy(drawn)
        if self.canvases.is_cuda:  # a copy from pinned memory does not wait for the GPU
            numbers = numbers.pin_memory().to(self.canvases.device, non_blocking=True)
        sample, down, right, mirrored = numbers.view(4, -1, 1, 1, 1).unbind()
        columns = torch.where(mirrored > 0, self.columns.flip(-1), self.columns)
        images = self.canvases[sample, self.channels, self.rows + down, columns + right]
        return normalise(images, self.offset, self.scale), self.labels[sample.flatten()]
