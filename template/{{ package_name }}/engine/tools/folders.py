"""Run folders as people name them, and where results are written. Without torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from ..paths import shown


def is_run(folder: Path) -> bool:
    return (folder / "manifest.json").is_file() and (folder / "config.yaml").is_file()


def runs_below(folder: Path) -> list[Path]:
    """The folder itself where it is a run, else all runs below it, oldest first."""
    if not folder.is_dir():
        raise UserError(
            f"There is no folder {shown(folder)}; name a run folder, such as runs/NAME/TIME."
        )
    if is_run(folder):
        return [folder]
    found = []
    for parent, names, _ in os.walk(folder):
        names[:] = sorted(n for n in names if not n.startswith("."))
        if is_run(Path(parent)):
            found.append(Path(parent))
            names.clear()
    return found


def one_run(folder: Path) -> Path:
    """`folder`, which must be a run. Raises `UserError`."""
    found = runs_below(folder)
    if found == [folder]:
        return folder
    hint = f"; name one of those below it, such as {shown(found[-1])}" if found else ""
    raise UserError(f"{shown(folder)} is no run: it holds no config.yaml and manifest.json{hint}.")


@contextlib.contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Makes `folder`; an I/O error within the block becomes one sentence. Raises `UserError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BrokenPipeError:  # stdout, of which `head` has seen enough
        raise
    except OSError as error:
        raise UserError(
            f"Nothing can be written to {shown(folder)} ({error.strerror or error}); name another folder "
            "as --out."
        ) from error
