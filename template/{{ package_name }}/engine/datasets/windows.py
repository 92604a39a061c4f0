"""Windows cut from pictures: what a sample looks like follows from its key alone."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..api import Data
from ..errors import UserError
from .augment import Augment, in_own_size
from .cache import Cache
from .pictures import PLAIN, Decoding, covering, to_cover


class Samples(Sequence[str]):
    """The paths of pictures, in one text, which loader workers share.

    labels: int64 [N], -1 for an unknown class; or float32 [N, classes] of 0 and 1.
    """

    def __init__(self, folder: str, names: Sequence[str], labels: Tensor) -> None:
        """names: paths, from `folder` on."""
        encoded = [os.fsencode(name) for name in names]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        small = ends[-1] < 1 << 31
        self.folder, self.labels = folder, labels
        self.text = torch.frombuffer(bytearray(b"".join(encoded) or b"\0"), dtype=torch.uint8)
        self.ends = torch.from_numpy(ends.astype(np.int32) if small else ends)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        """Return the path of a picture. Raises `IndexError` from N on."""
        return os.path.join(self.folder, self.name(index))

    def name(self, index: int) -> str:
        begin, end = int(self.ends[index]), int(self.ends[index + 1])
        return os.fsdecode(self.text[begin:end].numpy().tobytes())


NO_SAMPLES = Samples("", (), torch.empty(0, dtype=torch.int64))


@dataclass(eq=False, repr=False)
class Windows(Dataset[Any]):
    """Pictures from which training cuts windows. A subclass defines `cut`.

    It is a `BatchDataset` (see api.py). Integer arithmetic on a sample's key decides what happens to
    the sample, so no generator needs a seed.
    """

    labels: Tensor  # int64 [N], or float32 [N, classes] if a picture has several
    shape: tuple[int, int, int]  # channels, height and width of a window
    shift: tuple[int, int]  # pixels that a window may lie beside the middle, down and right
    flip: bool  # mirror half of the pictures left to right
    offset: Tensor  # see `normalisation`
    scale: Tensor

    decoding = PLAIN
    """How `files` reads pictures."""

    augment: Augment | None = field(default=None, init=False)

    def augmented(self, steps: Sequence[Any] | None) -> Self:
        """Change the pictures at random, too, in loader workers. Raises `UserError`."""
        if steps:
            self.augment, self.in_workers = Augment(steps, self.shape), True
        return self

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        """Return the image, float32 [C, H, W], and the label. torch's generator gives the key."""
        key = np.zeros(1, np.uint64)
        if self.flip or self.shift != (0, 0) or self.augment is not None:
            key = torch.randint(-(1 << 63), (1 << 63) - 1, (1,)).numpy().view(np.uint64)
        images, labels = self.batch(np.array([index]), key)
        return images[0], int(labels[0]) if labels.ndim == 1 else labels[0]

    def batch(self, indices: np.ndarray, keys: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return images, float32 [B, C, H, W], and labels, int64 [B] or float32 [B, classes]."""
        down, right, mirrored = self.draw(keys)
        if self.augment is None:
            images = self.cut(indices, down, right)
        else:
            pairs = zip(self.pictures(indices, down, right), keys.tolist(), strict=True)
            images = np.stack([self.augment(picture, key).numpy() for picture, key in pairs])
        chosen = np.flatnonzero(mirrored)
        if len(chosen):
            images[chosen] = torch.from_numpy(images.take(chosen, axis=0)).flip(-1).numpy()
        labels = self.labels[torch.from_numpy(indices)]
        return normalise(torch.from_numpy(images), self.offset, self.scale), labels

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return three arrays [B] for keys, uint64 [B]: how far down and right the window lies, from 0
        to 2·shift, and whether the picture is mirrored (0 or 1)."""
        # Bits 1 to 31 of a key decide how far down, bits 32 to 63 how far right. Bit 0 mirrors.
        down, right = (np.uint64(2 * most + 1) for most in self.shift)
        return (
            ((keys & np.uint64(0xFFFFFFFE)) * down) >> np.uint64(32),
            ((keys >> np.uint64(32)) * right) >> np.uint64(32),
            keys & np.uint64(self.flip),
        )

    def pictures(
        self, indices: np.ndarray, down: np.ndarray, right: np.ndarray
    ) -> Iterable[Tensor]:
        """Return what `augment` changes: the windows, [C, H, W]."""
        return torch.from_numpy(self.cut(indices, down, right))

    def files(self, paths: Sequence[str]) -> Dataset[Any]:
        """Return pictures from files, scaled and normalised like these, with the label -1."""
        samples = Samples("", paths, torch.full((len(paths),), -1))
        options = (self.shape, (0, 0), False, self.offset, self.scale)
        return PictureFiles(samples, self.decoding, *options)

    def cut(self, indices: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return the window of each picture at row `down` and column `right`: [B, C, H, W], uint8 or
        float32 from 0 to 255.

        A subclass defines this, or `batch` itself.
        """
        raise NotImplementedError


class PictureFiles(Windows):
    """Pictures that loader workers read from files, scale to cover height × width, and cut."""

    in_workers: bool = True
    interpolation = "bilinear"
    cache: Cache | None = None
    """Pictures that are decoded already. None: read the files."""

    def __init__(self, samples: Samples, decoding: Decoding, *options: Any) -> None:
        """`options`: those of `Windows`, from `shape` on."""
        super().__init__(samples.labels, *options)
        self.samples, self.decoding = samples, decoding
        self.dtype = np.uint8 if decoding.range is None else np.float32

    def cut(self, indices: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        _, height, width = self.shape
        images = np.empty((len(indices), *self.shape), self.dtype)
        places = zip(indices.tolist(), down.tolist(), right.tolist(), strict=True)
        for image, (index, y, x) in zip(images, places, strict=True):
            image[:] = self.canvas(index)[:, y : y + height, x : x + width]
        return images

    def augmented(self, steps: Sequence[Any] | None) -> Self:
        super().augmented(steps)
        if self.augment is not None and self.augment.cuts_box:
            self.shift = (0, 0)  # the box replaces it
        return self

    def pictures(
        self, indices: np.ndarray, down: np.ndarray, right: np.ndarray
    ) -> Iterable[Tensor]:
        if self.augment is None or not self.augment.cuts_box:
            return super().pictures(indices, down, right)
        if self.cache is not None:
            return (torch.from_numpy(self.cache[i]).permute(2, 0, 1) for i in indices.tolist())
        paths = (self.samples[index] for index in indices.tolist())
        return (in_own_size(path, self.shape[0], self.decoding) for path in paths)

    def canvas(self, index: int) -> np.ndarray:
        """Return the part of a picture that windows can show: [C or 1, H + 2·down, W + 2·right]."""
        channels, height, width = self.shape
        if self.cache is None:
            image = covering(self.samples[index], channels, height, width, self.decoding)
        else:
            pixels = self.cache[index]
            image = Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels)
            image = to_cover(image, height, width)
        height, width = height + 2 * self.shift[0], width + 2 * self.shift[1]
        top, left = int((image.height - height) / 2), int((image.width - width) / 2)
        # Around a smaller picture, the canvas is black.
        image = image.crop((left, top, left + width, top + height))
        return np.asarray(image).reshape(height, width, -1).transpose(2, 0, 1)


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
    """Return (pixel - offset) * scale of [B, C, H, W], uint8 or float32, as float32. It may change
    `images` in place."""
    if images.shape[1] == 1:  # with strides that mean NHWC too, which convolutions may choose
        images = images[:, 0, :, :, None].permute(0, 3, 1, 2)
    # Two roundings. torch uses a fused multiply-add for some places of a batch only: a sample would
    # have other bits in another batch.
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
