"""Pictures in memory: a batch is cut, mirrored and normalised at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config.schema import Rule, check_value
from ..errors import UserError
from .windows import Windows, normalisation, normalise


@dataclass(eq=False, repr=False)
class Canvases(Windows):
    """Pictures in memory, each in the middle of a canvas, which is larger by the shift."""

    canvases: np.ndarray  # uint8 or float32, [N, C, H + 2·down, W + 2·right]

    def __post_init__(self) -> None:
        self.sample_bytes = 4 * math.prod(self.shape)

    def cut(self, indices: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        if self.shift == (0, 0):
            return self.canvases.take(indices, axis=0)
        channels, height, width = self.shape
        sample, channel, row, pixel = self.canvases.strides
        # In this array, which overlaps itself, one element is one row of a window. So numpy copies
        # rows, not bytes. Each batch makes the view anew, because pickle would write it out in full.
        windows = np.ndarray(
            (len(self), 2 * self.shift[0] + 1, 2 * self.shift[1] + 1, channels, height),
            np.dtype((np.void, width * pixel)),
            self.canvases,
            strides=(sample, row, pixel, channel, row),
        )
        rows = windows[indices, down, right].view(self.canvases.dtype)
        return rows.reshape(-1, channels, height, width)

    def to(self, device: torch.device) -> OnDevice:
        """Return the same data set on `device`, which makes the batches. Raises `UserError`."""
        if self.augment is not None:
            raise UserError("data.augment works on the CPU. Set data_on_device=false.")
        return OnDevice(self, device)


class ArrayImages(Canvases):
    """Images and labels in memory, with augmentation for training.

    images: uint8, shape [N, H, W, C]; labels: int64, shape [N]. `shift` moves a picture by up to so
    many pixels in each direction; its surroundings are black. `flip` mirrors half of the pictures
    left to right. `augment`: see `Augment`. A pixel becomes (pixel / 255 - mean) / std.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        mean: float | Sequence[float],
        std: float | Sequence[float],
        shift: int = 0,
        flip: bool = False,
        augment: Sequence[Any] | None = None,
    ) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(labels):
            given = f"{images.dtype} images {list(images.shape)} and {len(labels)} labels"
            raise UserError(f"Give images as uint8 [N, H, W, C] and N labels, not {given}.")
        count, height, width, channels = images.shape
        check_value("data.shift", shift, Rule(at_least=0, below=min(height, width)))
        offset, scale = normalisation(mean, std, channels)
        # With a border, a shifted picture is a window of its canvas: a batch is one copy.
        canvases = np.zeros((count, channels, height + 2 * shift, width + 2 * shift), np.uint8)
        middle = (slice(shift, shift + height), slice(shift, shift + width))
        canvases[:, :, *middle] = images.transpose(0, 3, 1, 2)
        numbers = torch.from_numpy(np.ascontiguousarray(labels, dtype=np.int64))
        shape = (channels, height, width)
        super().__init__(numbers, shape, (shift, shift), flip, offset, scale, canvases)
        self.augmented(augment)


class OnDevice(Windows):
    """`Canvases` on a GPU. A batch sends 32 bytes per sample: its number and its draws.

    Its batches equal those of `Canvases` bit for bit: the host draws, and pixels are integers until
    the same subtraction and multiplication.
    """

    def __init__(self, source: Canvases, device: torch.device) -> None:
        labels, offset, scale = (t.to(device) for t in (source.labels, source.offset, source.scale))
        super().__init__(labels, source.shape, source.shift, source.flip, offset, scale)
        self.sample_bytes = source.sample_bytes
        self.canvases = torch.from_numpy(source.canvases).to(device)

    def batch(self, indices: np.ndarray, keys: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return images, float32 [B, C, H, W], and labels, int64 [B], on the device."""
        drawn = np.stack([indices, *self.draw(keys)]).astype(np.int64)
        numbers = torch.from_numpy(drawn)
        if self.canvases.is_cuda:  # a copy from pinned memory does not wait for the GPU
            numbers = numbers.pin_memory().to(self.canvases.device, non_blocking=True)
        sample, down, right, mirrored = numbers.unbind()
        _, height, width = self.shape
        windows = self.canvases.unfold(2, height, 1).unfold(3, width, 1)
        images = windows[sample, :, down, right]
        images = torch.where(mirrored.view(-1, 1, 1, 1) > 0, images.flip(-1), images)
        return normalise(images, self.offset, self.scale), self.labels[sample]
