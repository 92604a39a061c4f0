"""The checkpoints of a run by their names, and why a file is not one."""

import os
import re
from pathlib import Path

from ..paths import remove, replacing

BEST, SHARDED_BEST = "best.pt", "best.dcp"
_NAME = re.compile(r"step-(\d{8,})\.(pt|dcp)")


def path_of(folder: Path, step: int, kind: str = "pt") -> Path:
    """Return the path of a checkpoint. kind: dcp for one in parts."""
    return folder / f"step-{step:08d}.{kind}"


def newest_first(folder: Path) -> list[Path]:
    """The numbered checkpoints of a run, found by listing."""
    found = [(int(m[1]), p) for p in folder.glob("step-*") if (m := _NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found, reverse=True)]


def bests(folder: Path) -> list[Path]:
    """The best checkpoint. A kill may leave one of each kind: the newer comes first."""
    found = [path for name in (BEST, SHARDED_BEST) if (path := folder / name).exists()]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def is_checkpoint(path: Path) -> bool:
    """Return whether a path may be a checkpoint. False if no file system takes such a path."""
    return os.path.isfile(path) or os.path.isfile(os.path.join(path, "state.pt"))


def link_best(path: Path) -> None:
    """Make best.dcp a link to a numbered checkpoint."""
    best = path.with_name(SHARDED_BEST)
    if not best.is_symlink():  # a copied run holds a folder
        remove(best)
    with replacing(best) as link:
        link.symlink_to(path.name)
    remove(path.with_name(BEST))


class Unusable(Exception):
    """A file that is not a checkpoint which this version can go on from."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path.name} {why}")
        self.path = path


class Damaged(Unusable):
    """A checkpoint whose bytes have changed on the disk."""
