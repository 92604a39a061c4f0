"""Where the project lies, and which files lie somewhere."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UserError

ROOT = Path(__file__).resolve().parents[2]
"""The project's root. It becomes the working directory: relative paths start there."""

CONFIGS = ROOT / "configs"
RUNS = ROOT / "runs"


def files_below(folder: str | Path, endings: tuple[str, ...]) -> list[str]:
    """The paths of all files below a folder whose names end so, in order. Links are followed, but
    each folder is taken once. Raises `UserError`.
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
                raise UserError(f"{path} is no file (a broken link?); repair or remove it.")
            found.append(path)
    return sorted(found)
