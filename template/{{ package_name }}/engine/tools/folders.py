"""Run folders as people name them, and how results are shown and written. Without torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import runs
from ..config import Config
from ..errors import UserError
from ..explain import first_line
from ..paths import ROOT


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


def read_config(folder: Path) -> Config:
    """The config of a run. Raises `UserError`."""
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        return runs.read_config(folder)
    except (OSError, AssertionError, YAMLError, OmegaConfBaseException, TypeError) as error:
        raise UserError(
            f"{shown(folder / 'config.yaml')} cannot be read: {first_line(error)}"
        ) from error


def shown(path: Path) -> str:
    """As a person would type it from the project's root."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


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


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
