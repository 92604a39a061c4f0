"""A file of decoded pictures, which all processes map into memory."""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import NO_SPACE, SaveError, UserError
from ..paths import replacing
from ..text import logger
from .pictures import Decoding, in_threads, upright

SIDE = 256
"""The shorter side of a cached picture, unless a batch needs more."""

_DIGEST = 64  # letters
_JUDGED = 500  # pictures, after which it is clear whether all have room


class Cache:
    """The cached pictures of some samples. Loader workers open the file themselves.

    The file holds `digest`; height and width of each picture, int32 [N, 2]; and all pixels.
    """

    def __init__(self, path: Path, digest: str, count: int, channels: int, rows: Tensor) -> None:
        """count: N, the pictures in the file. rows: int64, the place of each sample among them."""
        self.path, self.digest, self.count = path, digest, count
        self.channels, self.rows = channels, rows
        self.opened: tuple[np.ndarray, ...] = ()
        """Once the file is open: its content, the sizes, and where the pixels of each picture end."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "opened": ()}

    def __getitem__(self, index: int) -> np.ndarray:
        """Return the pixels of a sample, uint8 [H, W, channels]."""
        if not self.opened and not self.open():
            raise UserError(f"The cache {self.path} was changed or deleted. Start the run again.")
        (content, sizes, ends), row = self.opened, int(self.rows[index])
        return np.array(content[ends[row] : ends[row + 1]]).reshape(*sizes[row], self.channels)

    def open(self) -> bool:
        """Return False if there is no whole file of these pictures."""
        try:
            content = np.memmap(self.path, np.uint8, "r")
        except (OSError, ValueError):  # it does not exist, or is empty
            return False
        start = _DIGEST + 8 * self.count
        if content[:_DIGEST].tobytes() != self.digest.encode() or len(content) < start:
            return False
        sizes = content[_DIGEST:start].view(np.int32).reshape(-1, 2)
        ends = np.cumsum([start, *sizes.prod(axis=1, dtype=np.int64) * self.channels])
        if ends[-1] == len(content):
            self.opened = content, sizes, ends
        return bool(self.opened)

    def write(self, paths: Sequence[str], decoding: Decoding, side: int) -> None:
        """Write the file, unless another process does. Raises `UserError` or `SaveError`."""
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not any(folder.iterdir()):
                (folder / ".gitignore").write_text("*\n")
            with open(self.path.with_suffix(".lock"), "a") as lock:
                try:
                    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    logger.info(f"Another process writes {self.path}. This one waits.")
                    fcntl.lockf(lock, fcntl.LOCK_EX)
                if not self.open():
                    self._write(paths, partial(decoded, self.channels, decoding, side))
                    self.open()
        except OSError as error:
            why = error.strerror or error
            if error.errno in NO_SPACE:
                raise SaveError(
                    f"data.cache={folder} has no room: {why}. Make room, or set data.cache=null."
                ) from None
            raise UserError(
                f"data.cache={folder} cannot be written: {why}. Name another folder, or set "
                "data.cache=null."
            ) from None

    def _write(self, paths: Sequence[str], decode: Callable[[str], np.ndarray]) -> None:
        logger.info(f"Decoding {self.count:,} pictures into {self.path}")
        for stray in self.path.parent.glob(f".{self.path.name}.*.tmp"):  # of a killed process
            stray.unlink()
        sizes, free = np.empty((self.count, 2), np.int32), shutil.disk_usage(self.path.parent).free
        with replacing(self.path) as temporary, open(temporary, "xb") as file:
            file.seek(_DIGEST + sizes.nbytes)
            for number, pixels in enumerate(in_threads(decode, paths)):
                sizes[number] = pixels.shape[:2]
                file.write(pixels.data)
                needed = file.tell() / (number + 1) * self.count
                if number == _JUDGED and needed > free:
                    both = f"{needed / 2**30:.1f} GiB are needed, {free / 2**30:.1f} are free"
                    raise OSError(errno.ENOSPC, both)
            file.seek(0)
            file.write(self.digest.encode() + sizes.tobytes())
            file.flush()
            os.fsync(file.fileno())


def decoded(channels: int, decoding: Decoding, side: int, path: str) -> np.ndarray:
    """Return pixels, uint8 [H, W, channels], whose shorter side is at most `side`."""
    image = upright(path, channels, decoding, side)
    scale = side / min(image.size)
    if scale < 1:
        width, height = (round(scale * length) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(image).reshape(image.height, image.width, channels)


def cached(
    folder: Path, splits: Mapping[str, Sequence[str]], channels: int, decoding: Decoding, side: int
) -> dict[str, Cache]:
    """Return the cache of each split. They share one file in `folder`. It is written if it is missing,
    or if a picture changed since. Raises `UserError` or `SaveError`."""
    paths = sorted({path for samples in splits.values() for path in samples})
    names = hashlib.sha256(f"1 {channels} {decoding} {side}\n".encode())
    names.update(b"\n".join(map(os.fsencode, paths)))
    content, rows = names.copy(), {path: row for row, path in enumerate(paths)}
    for facts in map(os.stat, paths):
        content.update(f"{facts.st_size} {facts.st_mtime_ns}\n".encode())
    own = folder / f"{names.hexdigest()[:16]}.pixels", content.hexdigest(), len(paths), channels
    caches = {
        split: Cache(*own, torch.tensor([rows[path] for path in samples]))
        for split, samples in splits.items()
    }
    for cache in caches.values():
        if not cache.open():
            cache.write(paths, decoding, side)
    return caches
