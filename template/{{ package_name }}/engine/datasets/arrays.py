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


class Canvases(Dataset[Any]):
    """Pictures in memory, each the middle of a canvas from which training cuts windows.

    canvases: uint8, shape [N, C, H + 2·down, W + 2·right]; labels: int64, shape [N]; `shift`: down
    and right, by how many pixels a window may lie beside the middle. `flip` mirrors half of the
    pictures left to right. `offset` and `scale`: see `normalisation`.

    It is a `BatchDataset` (see api.py): what happens to a sample follows from the sample's key
    alone, by integer arithmetic, so no generator has to be seeded.
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
        self.canvases, self.shift, self.flip = canvases, shift, flip
        self.labels = torch.from_numpy(np.ascontiguousarray(labels, dtype=np.int64))
        self.offset, self.scale = offset, scale
        channels, height, width = canvases.shape[1:]
        self.shape = (height - 2 * shift[0], width - 2 * shift[1], channels)
        self.sample_bytes = 4 * self.shape[0] * self.shape[1] * channels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image float32 [C, H, W] and label; what is drawn comes from torch's generator."""
        images, labels = self.batch(np.array([index]), own_key(self.shift, self.flip))
        return images[0], int(labels[0])

    def batch(self, indices: np.ndarray, keys: np.ndarray) -> tuple[Tensor, Tensor]:
        """images float32 [B, C, H, W], labels int64 [B]."""
        down, right, mirrored = draw(keys, self.shift, self.flip)
        images = self._cut(indices, down, right)
        mirror(images, mirrored)
        labels = self.labels[torch.from_numpy(indices)]
        return normalise(torch.from_numpy(images), self.offset, self.scale), labels

    def _cut(self, indices: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        """uint8 [B, C, H, W]: of each canvas the window at row `down`, column `right`."""
        if self.shift == (0, 0):
            return self.canvases.take(indices, axis=0)
        height, width, channels = self.shape
        sample, channel, row, pixel = self.canvases.strides
        # One row of a window is one element of an array that overlaps itself, so that rows, not
        # bytes, are copied. A view made for each batch: kept, pickle would write it out in full.
        windows = np.ndarray(
            (len(self), 2 * self.shift[0] + 1, 2 * self.shift[1] + 1, channels, height),
            np.dtype((np.void, width)),
            self.canvases,
            strides=(sample, row, pixel, channel, row),
        )
        rows = windows[indices, down, right].view(np.uint8)
        return rows.reshape(-1, channels, height, width)

    def to(self, device: torch.device) -> OnDevice:
        """The same data set on `device`, where its batches are made."""
        return OnDevice(self, device)

    def files(self, paths: Sequence[str]) -> Dataset[Any]:
        """Pictures from files, scaled to the size of these and normalised like them; label -1."""
        return _Files(paths, self.shape, self.offset, self.scale)


class ArrayImages(Canvases):
    """Images and labels in memory, with augmentation for training.

    images: uint8, shape [N, H, W, C]; labels: int64, shape [N]. `shift` moves a picture by up to so
    many pixels in each direction (what comes into view is black), `flip` mirrors half of the
    pictures left to right. A pixel becomes (pixel / 255 - mean) / std.
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
        count, height, width, channels = images.shape
        if not 0 <= shift < min(height, width):
            raise UserError(
                f"data.shift={shift} must be from 0 to less than the pictures' {height}×{width} "
                "pixels."
            )
        offset, scale = normalisation(mean, std, channels)
        # With a border once and for all, a shifted picture is a window: no copy but the last.
        canvases = np.zeros((count, channels, height + 2 * shift, width + 2 * shift), np.uint8)
        middle = (slice(shift, shift + height), slice(shift, shift + width))
        canvases[:, :, *middle] = images.transpose(0, 3, 1, 2)
        super().__init__(canvases, labels, (shift, shift), flip, offset, scale)


class OnDevice(Dataset[Any]):
    """`Canvases` on a GPU: only a batch's numbers and draws go there, 32 bytes per sample.

    Its batches are those of `Canvases`, bit for bit: draws are made on the host, pixels are
    integers until the same subtraction and multiplication.
    """

    def __init__(self, source: Canvases, device: torch.device) -> None:
        self.shift, self.flip, self.sample_bytes = source.shift, source.flip, source.sample_bytes
        self.canvases = torch.from_numpy(source.canvases).to(device)
        self.labels = source.labels.to(device)
        self.offset, self.scale = source.offset.to(device), source.scale.to(device)
        # The numbers of a window's rows, columns and channels, shaped as in [B, C, H, W].
        height, width, channels = source.shape
        self.rows = torch.arange(height, device=device).view(1, 1, -1, 1)
        self.columns = torch.arange(width, device=device).view(1, 1, 1, -1)
        self.channels = torch.arange(channels, device=device).view(1, -1, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: np.ndarray, keys: np.ndarray) -> tuple[Tensor, Tensor]:
        """images float32 [B, C, H, W], labels int64 [B], on the device."""
        drawn = np.stack([indices, *draw(keys, self.shift, self.flip)]).astype(np.int64)
        numbers = torch.from_numpy(drawn)
        if self.canvases.is_cuda:  # from pinned memory the copy does not wait for the GPU
            numbers = numbers.pin_memory().to(self.canvases.device, non_blocking=True)
        sample, down, right, mirrored = numbers.view(4, -1, 1, 1, 1).unbind()
        columns = torch.where(mirrored > 0, self.columns.flip(-1), self.columns)
        images = self.canvases[sample, self.channels, self.rows + down, columns + right]
        return normalise(images, self.offset, self.scale), self.labels[sample.flatten()]


class _Files(Dataset[Any]):
    def __init__(
        self, paths: Sequence[str], shape: tuple[int, int, int], offset: Tensor, scale: Tensor
    ) -> None:
        self.paths, self.shape, self.offset, self.scale = paths, shape, offset, scale

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        height, width, channels = self.shape
        pixels = cut_canvas(read(self.paths[index], channels, height, width), height, width)
        return normalise(torch.from_numpy(pixels[None]), self.offset, self.scale)[0], -1


def cut_canvas(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [C, height, width]: the middle of `pixels` (uint8 [H, W, C]), black beside it."""
    canvas = np.zeros((pixels.shape[2], height, width), np.uint8)
    source: list[slice] = []
    target: list[slice] = []
    for have, want in zip(pixels.shape[:2], (height, width), strict=True):
        first = (have - want) // 2 if have >= want else -((want - have) // 2)
        source.append(slice(max(0, first), first + want))
        target.append(slice(max(0, -first), max(0, -first) + min(have - max(0, first), want)))
    canvas[:, target[0], target[1]] = pixels[source[0], source[1]].transpose(2, 0, 1)
    return canvas


def own_key(shift: tuple[int, int], flip: bool) -> np.ndarray:
    """uint64 [1], from torch's generator where something is drawn with it."""
    if shift == (0, 0) and not flip:
        return np.zeros(1, np.uint64)
    return torch.randint(-(1 << 63), (1 << 63) - 1, (1,)).numpy().view(np.uint64)


def draw(
    keys: np.ndarray, shift: tuple[int, int], flip: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each key (uint64 [B]) a window's place, from 0 to 2·shift down and right, and whether it
    is mirrored (0 or 1)."""
    # Bits 1 to 31 of a key say how far down, 32 to 63 how far right, bit 0 whether mirrored.
    down, right = (np.uint64(2 * most + 1) for most in shift)
    return (
        ((keys & np.uint64(0xFFFFFFFE)) * down) >> np.uint64(32),
        ((keys >> np.uint64(32)) * right) >> np.uint64(32),
        keys & np.uint64(flip),
    )


def mirror(images: np.ndarray, mirrored: np.ndarray) -> None:
    """Turn those of `images` (uint8 [B, C, H, W]), in place, left to right, that are `mirrored`."""
    chosen = np.flatnonzero(mirrored)
    if len(chosen):
        images[chosen] = torch.from_numpy(images.take(chosen, axis=0)).flip(-1).numpy()


def normalise(images: Tensor, offset: Tensor, scale: Tensor) -> Tensor:
    """(byte - offset) * scale of uint8 [B, C, H, W]: float32, of the same shape."""
    if images.shape[1] == 1:  # with strides that say NHWC as well, which convolutions may choose
        images = images[:, 0, :, :, None].permute(0, 3, 1, 2)
    # In two roundings: a fused multiply-add, used in some places of a batch and not in others,
    # would give a sample other bits in another batch.
    return images.to(torch.float32).sub_(offset).mul_(scale)


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
