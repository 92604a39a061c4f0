"""The project's source files, and what git says of them."""

import contextlib
import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..paths import ROOT
from ..text import logger

LARGEST, MOST = 1 << 20, 2_000  # bytes of a source file, number of files
_SMALL, _ROOM = 1 << 16, 1 << 18  # bytes of an untracked file in a manifest, and of all of them
_AT_TOP = {"runs", "data", "outputs", "multirun", "wandb", "mlruns", "build", "dist"}
_NO_SOURCE = re.compile(r"(runs|\.venv|(data|report)-of-the-run)/|.*\.run\.zip$|.*\\")
_SKIPPED = re.compile(
    r"\.(?!copier-answers\.yml|python-version).*|__pycache__|node_modules|.*\.(egg-info|pyc)"
)


def git(*arguments: str, **options: Any) -> bytes | None:
    """Return what git prints in the project; None if it fails or is not installed."""
    command = ["git", "-C", str(ROOT), *arguments]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, check=True, capture_output=True, **options).stdout
    return None


def git_facts() -> dict[str, Any] | None:
    """Return commit, uncommitted changes, remote and untracked texts; None without a commit."""
    commit = git("rev-parse", "HEAD")
    diff = git("diff", "--no-color", "--no-ext-diff", "--src-prefix=a/", "--dst-prefix=b/", "HEAD")
    if commit is None or diff is None:
        return None
    remote = (git("ls-remote", "--get-url") or b"").decode(errors="replace").strip()
    untracked, room = dict[str, str](), _ROOM
    for path in _named_by_git("--others"):
        content = read_source(path)
        if content is not None and len(content) <= min(room, _SMALL):
            with contextlib.suppress(UnicodeDecodeError):
                untracked[path] = content.decode()
                room -= len(content)
    return {
        "commit": commit.decode().strip(),
        "diff": diff.decode(errors="replace"),
        # Without a remote, git returns the name that it would have.
        "remote": re.sub(r"^(https?://)[^/@]*@", r"\1", remote) if "/" in remote else None,
        "untracked": untracked,
    }


def read_source(path: str) -> bytes | None:
    """Return a source file; None if it is gone, too large, or a link out of the project."""
    place = ROOT / path
    with contextlib.suppress(OSError, ValueError):
        fits = place.name == "uv.lock" or place.stat().st_size <= LARGEST
        if place.is_file() and place.resolve().is_relative_to(ROOT) and fits:
            return place.read_bytes()
    return None


def source_hashes() -> dict[str, str]:
    """Return the SHA-256 of each source file, by its path in the project.

    Source files are those that git does not ignore. Without git: all files but runs, data, caches,
    environments and hidden ones.
    """
    found = _named_by_git("--cached", "--others") or islice(_walked(), 10 * MOST)
    known = sorted({*found, *_named_by_git("--cached", "--recurse-submodules"), "uv.lock"})
    paths = [path for path in known if path.isprintable() and not _NO_SOURCE.match(path)]
    if len(paths) > MOST:
        logger.warning(
            f"The project has more than {MOST:,} source files. manifest.json names the first of them. "
            "Let git ignore files that are no source."
        )
    contents = ((path, read_source(path)) for path in paths[:MOST])
    return {path: hashlib.sha256(text).hexdigest() for path, text in contents if text is not None}


def _named_by_git(*kinds: str) -> list[str]:
    named = git("ls-files", "-z", "--exclude-standard", *kinds) or b""
    return named.decode(errors="replace").split("\0")[:-1]


def _walked() -> Iterator[str]:
    for place, folders, files in os.walk(ROOT):
        inside = Path(place).relative_to(ROOT)
        folders[:] = [
            name
            for name in folders
            if not _SKIPPED.fullmatch(name)
            and str(inside / name) not in _AT_TOP
            and not os.path.exists(os.path.join(place, name, "pyvenv.cfg"))
        ]
        yield from (str(inside / name) for name in files if not _SKIPPED.fullmatch(name))
