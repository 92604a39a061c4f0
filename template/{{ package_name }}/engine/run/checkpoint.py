"""A checkpoint: one plain dict of tensors and primitives. Its file is whole or absent."""

import contextlib
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import one_line
from ..paths import delete_temporary_files, temporary_path
from .disk import find_damage, save_error
from .shape import CHECKPOINT, misfit

FORMAT = 1  # layout of the file
INTERFACE = 1  # version of the interface in api.py that the run was made with

BEST = "best.pt"
_NAME = re.compile(r"step-(\d{8,})\.pt")

KEYS = (  # of every checkpoint
    *("format", "interface", "step", "epoch", "config", "fingerprint"),
    *("model", "ema", "loss", "optimizer", "scheduler", "scaler", "windows", "best", "pending"),
)


class Unusable(Exception):
    """A file that is not a checkpoint which this version can go on from."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path.name} {why}")
        self.path = path


class Damaged(Unusable):
    """A checkpoint whose bytes have changed on the disk."""


def path_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.pt"


def newest_first(folder: Path) -> list[Path]:
    """The numbered checkpoints of a run, found by listing."""
    found = [(int(m[1]), p) for p in folder.glob("step-*.pt") if (m := _NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found, reverse=True)]


def save(state: Mapping[str, Any], path: Path, best: bool = False) -> None:
    """Write `state` to `path`, atomically and durably. If it is the `best`, write best.pt as well.

    Raises `SaveError`.
    """
    temporary, second = temporary_path(path), temporary_path(path.with_name(BEST))
    try:
        delete_temporary_files(path.parent)
        _write(state, temporary)
        if best:  # first, because the numbered checkpoint says that best.pt is there
            try:
                os.link(temporary, second)  # no checkpoint is ever changed: names may share a file
            except OSError:  # a file system without hard links
                _write(state, second)
            _rename(second, path.with_name(BEST))
        _rename(temporary, path)
    except (OSError, RuntimeError) as error:
        _discard(temporary, second)
        told = save_error(error, path, state)
        if told is None:
            raise
        raise told from error


def _write(state: Mapping[str, Any], path: Path) -> None:
    with open(path, "xb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())


def _rename(temporary: Path, path: Path) -> None:
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # waits until the name is on the disk
    finally:
        os.close(folder)


def _discard(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def prune(newest: Path, keep: int | None) -> None:
    """Delete numbered checkpoints up to `newest`, except for the last `keep`. None: keep all.

    Later ones belong to another run or cannot be used. They stay and do not count.
    """
    paths = newest_first(newest.parent)
    for path in [] if keep is None else paths[paths.index(newest) :][keep:]:
        path.unlink(missing_ok=True)


def load(path: Path, mapped: bool = False) -> dict[str, Any]:
    """Return the dict stored at `path`, on the CPU; never run code from it.

    mapped: leave the tensors in the file, for a look at the other values.
    Raises `Damaged`, `Unusable`, and OSError if the file cannot be read at all.
    """
    with open(path, "rb") as file:
        damage = find_damage(file)
    if damage is not None:
        raise Damaged(path, f"is damaged: {damage}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        why = "holds more than tensors and plain values; loading it could run code"
        raise Unusable(path, why) from error
    except (MemoryError, OSError):
        raise
    except Exception as error:  # a file of another kind makes torch raise errors of many kinds
        raise Unusable(path, f"cannot be loaded: {one_line(error)[:120]}") from error
    if not isinstance(state, dict) or "format" not in state:
        raise Unusable(path, "is not a checkpoint of a run")
    if state["format"] != FORMAT:
        raise Unusable(path, f"has format {state['format']}; this version reads format {FORMAT}")
    for key in KEYS:
        if key not in state:
            raise Unusable(path, f"lacks '{key}'")
    if (wrong := misfit(state, CHECKPOINT)) is not None:
        raise Unusable(path, f"holds a value of a wrong type at '{wrong}'")
    return state
