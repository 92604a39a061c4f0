"""A checkpoint is one plain dict of tensors and primitives, written so that it is whole or absent."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from ..errors import NO_SPACE, SaveError, one_line

FORMAT = 1
"""Layout of the file."""

INTERFACE = 1
"""Version of the interface in api.py that the run was made with."""

_NAME = re.compile(r"step-(\d{8,})\.pt")

KEYS = [
    "format",
    "interface",
    "step",
    "epoch",
    "model",
    "ema",
    "loss",
    "optimizer",
    "scheduler",
    "scaler",
    "windows",
    "best",
    "pending",
    "config",
    "fingerprint",
]


class Unusable(Exception):
    """A file that is not a checkpoint this version can go on from; the text says why."""


class Damaged(Unusable):
    """A checkpoint whose bytes are not those that were written."""


def path_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.pt"


def newest_first(folder: Path) -> list[Path]:
    """The numbered checkpoints of a run, found by listing."""
    found = [(int(m[1]), p) for p in folder.glob("step-*.pt") if (m := _NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found, reverse=True)]


def save(state: Mapping[str, Any], path: Path) -> None:
    """Write `state` to `path`, atomically and durably. Raises `SaveError`."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        cause = _os_error(error)
        if cause is None:
            raise
        needed = sum(t.numel() * t.element_size() for t in _tensors(state))
        raise _save_error(cause, path, temporary, needed) from error


def link(path: Path, name: str) -> None:
    """Give the checkpoint at `path` a second name beside it, atomically."""
    target = path.with_name(name)
    temporary = path.with_name(f".{name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)  # a checkpoint is never written in place, so sharing is safe
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)
        os.replace(temporary, target)
        _sync_folder(path.parent)
    except OSError as error:
        raise _save_error(error, target, temporary, path.stat().st_size) from error


def prune(newest: Path, keep: int) -> None:
    """Of the numbered checkpoints up to `newest`, keep the last `keep`.

    Later ones are not this run's, or cannot be used: they must not stand for one that can.
    """
    paths = newest_first(newest.parent)
    for path in paths[paths.index(newest) :][keep:]:
        path.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """The dict stored at `path`, on the CPU; never runs code from it.

    Raises `Damaged`, `Unusable`, and OSError where the file cannot be read at all.
    """
    with open(path, "rb") as file:
        broken = _broken(file)
        if broken is not None:
            raise Damaged(f"{path.name} is damaged: {broken}")
        file.seek(0)
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise Unusable(
                f"{path.name} holds more than tensors and plain values; loading it could run code"
            ) from error
        except (MemoryError, OSError):
            raise
        except Exception as error:  # whatever a file of something else makes the reader raise
            raise Unusable(f"{path.name} cannot be loaded: {one_line(error)[:120]}") from error
    if not isinstance(state, dict) or "format" not in state:
        raise Unusable(f"{path.name} is not a checkpoint of a run")
    if state["format"] != FORMAT:
        raise Unusable(
            f"{path.name} has format {state['format']}; this version reads format {FORMAT}"
        )
    missing = [key for key in KEYS if key not in state]
    if missing:
        raise Unusable(f"{path.name} lacks '{missing[0]}'")
    return state


def _broken(file: IO[bytes]) -> str | None:
    """What is wrong with an archive, or None.

    torch.load does not compare checksums: a flipped bit would load as a wrong weight.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if (name := archive.testzip()) is not None:
                return f"the checksum of '{name}' is wrong"
            # No checksum covers the archive's own directory, and torch reads a record that is
            # marked as a folder there as one of uninitialised bytes.
            marked = next((i.filename for i in archive.infolist() if i.external_attr & 16), None)
            return None if marked is None else f"'{marked}' is marked as a folder"
    except Exception as error:  # whatever a broken file makes the reader raise
        # EINVAL: the file names a place before its own start. All else is the disk's fault.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        return one_line(error)[:120]


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _os_error(error: BaseException | None) -> OSError | None:
    """torch.save hides the I/O error behind one of its own: look it up in the chain."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


def _save_error(error: OSError, path: Path, temporary: Path, needed: int) -> SaveError:
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
    if error.errno in NO_SPACE:
        free = shutil.disk_usage(path.parent).free
        return SaveError(
            f"No space to save {path} ({error.strerror}): it needs about {needed / 2**20:.1f} MiB, "
            f"{free / 2**20:.1f} MiB are free. Make room and go on with resume=; earlier "
            "checkpoints are intact."
        )
    return SaveError(f"Could not save {path}: {error}. Earlier checkpoints are intact.")
