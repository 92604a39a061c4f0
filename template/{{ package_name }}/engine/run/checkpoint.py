"""A checkpoint: one plain dict of tensors and primitives. Its file is whole or absent."""

import errno
import itertools
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import one_line
from ..machine.device import each
from ..paths import disk_error, not_written, remove, replacing
from .facts import CHECKPOINT, misfit
from .names import BEST, SHARDED_BEST, Damaged, Unusable, newest_first

FORMAT = 1  # layout of the file
INTERFACE = 1  # version of the interface in api.py that the run was made with


def save(state: Mapping[str, Any], path: Path, best: bool = False) -> None:
    """Write `state` to `path`, atomically and durably; best.pt too if `best`. Raises `SaveError`."""
    try:
        with replacing(path) as numbered:
            write(state, numbered)
            if best:  # first, because the numbered checkpoint says that best.pt is there
                with replacing(path.with_name(BEST)) as second:
                    try:
                        os.link(numbered, second)  # no checkpoint ever changes
                    except OSError:  # a file system without hard links
                        write(state, second)
                remove(path.with_name(SHARDED_BEST))
                sync(path.parent)
        sync(path.parent)
    except (OSError, RuntimeError) as error:
        cause = disk_error(error)
        if not isinstance(cause, OSError):
            raise
        raise not_written(path, cause, sum(t.nbytes for t in each(state))) from error


def write(state: Mapping[str, Any], path: Path) -> None:
    with open(path, "xb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prune(newest: Path, keep: int | None) -> None:
    """Delete numbered checkpoints up to `newest`, except for the last `keep`. None: keep all."""
    # Later ones belong to another run or cannot be used. They stay and do not count.
    older = itertools.dropwhile(lambda path: path != newest, newest_first(newest.parent))
    best = (newest.parent / SHARDED_BEST).resolve()
    for path in itertools.islice(older, keep, None) if keep is not None else ():
        if path.resolve() != best:
            remove(path)


def load(path: Path, mapped: bool = False) -> dict[str, Any]:
    """Return the dict stored at `path`, on the CPU; never run code from it.

    mapped: leave the tensors in the file. Raises `Damaged`, `Unusable`; OSError of the disk.
    """
    is_sharded = path.is_dir()
    file = path / "state.pt" if is_sharded else path
    if is_sharded and not file.exists():
        raise Damaged(path, "is damaged: its file state.pt is missing")
    check_bytes(file, path)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
        if is_sharded:
            from . import sharded_checkpoint  # here: it takes a second to import

            state = sharded_checkpoint.with_tensors(path, state, mapped)
    except pickle.UnpicklingError as error:
        why = "holds more than tensors and plain values; loading it could run code"
        raise Unusable(path, why) from error
    except (MemoryError, OSError, Damaged):
        raise
    except Exception as error:  # a file of another kind makes torch raise errors of many kinds
        raise Unusable(path, f"cannot be loaded: {one_line(error)[:120]}") from error
    if not isinstance(state, dict) or "format" not in state:
        raise Unusable(path, "is not a checkpoint of a run")
    if str(state["format"]) != str(FORMAT):
        raise Unusable(path, f"has format {state['format']}; this version reads format {FORMAT}")
    if (wrong := misfit(state, CHECKPOINT)) is not None:
        raise Unusable(path, f"has a wrong value or none at '{wrong}'")
    return state


def check_bytes(path: Path, named: Path | None = None) -> None:
    """Raise `Damaged` for a changed bit, which torch.load would load as a wrong weight."""
    if _damage(path) is None:
        return
    with open(path, "rb") as file:
        while file.read(1 << 20):  # raises the I/O error that zipfile took for damage
            pass
    if (damage := _damage(path)) is not None:  # the error has not passed
        raise Damaged(named or path, f"is damaged: {damage}")


def _damage(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(record.file_size for record in archive.infolist()) > path.stat().st_size:
                return "it is compressed, or its records overlap"  # they may fill the memory
            if (name := archive.testzip()) is not None:
                return f"the checksum of '{name}' is wrong"
            # No checksum covers the archive's directory. If a record is marked as a folder there,
            # torch returns uninitialised bytes for it.
            marked = [i.filename for i in archive.infolist() if i.external_attr & 16]
            return f"'{marked[0]}' is marked as a folder" if marked else None
    except Exception as error:  # a broken archive makes zipfile raise errors of many kinds
        # EINVAL: the archive names a place before its own start. Other OSErrors come from the disk.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        return one_line(error)[:120]
