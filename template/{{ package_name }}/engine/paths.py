"""The project's folders, paths as people read them, and files that are whole or absent."""

import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import UserError

ROOT = Path(__file__).resolve().parents[2]
"""The project's root. It becomes the working directory: relative paths start there."""

CONFIGS = ROOT / "configs"

RUNS = ROOT / "runs"


def shown(path: Path, start: Path = ROOT) -> str:
    """Return a path as a person types it in the folder `start`: relative if it lies below."""
    return str(path.relative_to(start) if path.is_relative_to(start) else path)


def temporary_path(path: Path) -> Path:
    """Return a path beside `path` that nobody can guess, `.NAME.….tmp`. Open it with mode "x"."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is whole or absent. A kill may leave a `temporary_path`."""
    temporary = temporary_path(path)
    try:
        with open(temporary, "x", encoding="utf-8") as file:  # follows no link
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def delete_temporary_files(folder: Path) -> None:
    """Delete the half-written files that a killed process left in `folder`."""
    for stray in folder.glob(".*.tmp"):
        stray.unlink(missing_ok=True)


def refuse_links(folder: Path) -> None:
    """Refuse a run folder with a link out of it: writing or reading would leave the folder.

    Weights & Biases keeps such links in its own folder, which no code here reads or writes.
    """
    inside = folder.resolve()
    for parent, folders, files in os.walk(folder):
        names = (*folders, *files)
        folders[:] = [name for name in folders if name != "wandb"]
        for name in names:
            path = Path(parent, name)
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise UserError(
                    f"{shown(path)} is a link out of the run folder. Replace it by a copy of the file or "
                    "the folder that it leads to: commands follow no such link."
                )


def files_below(folder: str | Path, endings: tuple[str, ...]) -> list[str]:
    """Return the sorted paths of all files below a folder with one of the endings.

    Follows links, but enters each folder once. Raises `UserError` for a broken link.
    """
    found: list[str] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for file in files:
            path = os.path.join(parent, file)
            if not file.lower().endswith(endings) or file.startswith("."):
                continue
            if not os.path.isfile(path):
                raise UserError(f"{path} is not a file (a broken link?). Repair or remove it.")
            found.append(path)
    return sorted(found)


def to_json(value: Any, **options: Any) -> str:
    """Return strict JSON. A number that is infinite or NaN becomes null, which JSON has for it."""
    return json.dumps(_without_nan(value), ensure_ascii=False, allow_nan=False, **options)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    return list(map(_without_nan, value)) if isinstance(value, list | tuple) else value


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file so that it is whole or absent."""
    write_whole(path, to_json(values, indent=2, default=str) + "\n")
