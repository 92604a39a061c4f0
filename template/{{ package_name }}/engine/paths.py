"""The project's folders, paths as people read them, and files that are whole or absent."""

import contextlib
import errno
import fnmatch
import hashlib
import json
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import NO_SPACE, SaveError, UserError

ROOT = Path(__file__).resolve().parents[2]
"""The project's root. It becomes the working directory: relative paths start there."""
if not (ROOT / "configs").is_dir():  # the package was moved, such as into src/
    ROOT = next((folder for folder in ROOT.parents if (folder / "configs").is_dir()), ROOT)

CONFIGS = ROOT / "configs"
RUNS = ROOT / "runs"


def shown(path: Path, start: Path = ROOT) -> str:
    """Return a path as a person types it in the folder `start`: relative if it lies below."""
    return str(path.relative_to(start) if path.is_relative_to(start) else path)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`, `.NAME.….tmp`. After the block its file replaces `path`.

    Nobody can guess this path. Open it with mode "x", which follows no link. If the block fails,
    `path` stays as it was. A kill may leave the temporary file.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a write tells no name
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is whole or absent."""
    with (
        replacing(path) as temporary,
        open(temporary, "x", encoding="utf-8", errors="surrogateescape") as file,
    ):
        file.write(text)


def not_written(path: Path | str, error: OSError, needed: int = 0) -> SaveError:
    """Describe why a file of a run was not written. needed: the bytes of a checkpoint."""
    why = f"{shown(Path(path))} cannot be written: {error.strerror or error}."
    first = "Put this right"
    if error.errno in NO_SPACE:
        first = "Make room"
        if needed:
            free = shutil.disk_usage(Path(path).parent).free / 2**20
            why += f" It needs about {needed / 2**20:.1f} MiB, {free:.1f} MiB are free."
    intact = "" if error.errno == errno.ENOENT else " Earlier checkpoints are intact."
    return SaveError(f"{why}{intact} {first} first.")


def delete_temporary_files(folder: Path) -> None:
    """Delete the half-written files that a killed process left in `folder`."""
    for stray in folder.glob(".*.tmp"):
        remove(stray)


def remove(path: Path) -> None:
    """Delete a file, a link or a folder, if it exists. A folder vanishes from its name at once."""
    if path.is_dir() and not path.is_symlink():
        hidden = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp".replace("..", "."))
        shutil.rmtree(path.rename(hidden), ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def disk_error(error: Exception) -> Exception:
    """Return the error of the disk that caused another error, or the error itself."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__  # torch.save hides it
    return cause or error


def refuse_links(folder: Path) -> None:
    """Refuse a run folder with a link out of it: writing or reading would leave the folder."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # deleted meanwhile
            raise UserError(f"{shown(Path(error.filename))} cannot be read: {error.strerror}.")

    for place, folders, files in os.walk(folder, onerror=refuse):
        for path in (Path(place, name) for name in (*folders, *files)):
            leaves = path.is_symlink() and not path.resolve().is_relative_to(folder.resolve())
            # No code here reads or writes the folder of Weights & Biases, which holds such links.
            if leaves and "wandb" not in path.relative_to(folder).parts[:-1]:
                raise UserError(f"{shown(path)} is a link out of the run folder. Put a copy there.")


PICTURES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"),
    *(".jfif", ".jpe", ".pnm", ".avif"),  # from release 0.3.0 on
)
"""The file name endings of pictures."""

OF_TOOLS = (
    *(".*", "@*", "__MACOSX", "__pycache__", "$RECYCLE.BIN", "lost+found"),
    *("Thumbs.db", "desktop.ini"),
)
"""Patterns of files and folders that tools leave among data."""


def files_below(
    folder: str | Path,
    endings: tuple[str, ...],
    skip: Sequence[str] | None = OF_TOOLS,
    others: Counter[str] | None = None,
) -> list[str]:
    """Return the sorted paths of files below a folder with one of the endings. Raises `UserError`.

    Files and folders whose names fit a pattern of `skip` do not count. None: skip hidden files only.
    others: counts the endings of all other files.
    """
    found: list[str] = []
    seen: set[str] = set()  # each folder is entered once, links are followed
    skipped = re.compile("|".join(map(fnmatch.translate, skip or ["."])))
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not skipped.match(name)]
        for name in files:
            path = os.path.join(parent, name)
            if name.startswith(".") or skipped.match(name):
                continue
            if not name.lower().endswith(endings):
                if others is not None:
                    others[os.path.splitext(name)[1].lower() or "without ending"] += 1
            elif os.path.isfile(path):
                found.append(path)
            else:
                raise UserError(f"{path} is not a file (a broken link?). Repair or remove it.")
    return sorted(found)


def checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of files. Several are read at once."""
    from concurrent.futures import ThreadPoolExecutor  # here: few commands need it

    def digest(name: str) -> str:
        with open(folder / name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    names = list(names)
    with ThreadPoolExecutor(8) as threads:
        return dict(zip(names, threads.map(digest, names), strict=True))


def to_json(
    value: Any, indent: int | None = None, default: Callable[[Any], Any] | None = None
) -> str:
    """Return strict JSON. A number that is infinite or NaN becomes null, which JSON has for it."""
    plain = json.loads(json.dumps(value, default=default), parse_constant=lambda nan: None)
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, indent=indent)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file so that it is whole or absent."""
    write_whole(path, to_json(values, indent=2, default=str) + "\n")
