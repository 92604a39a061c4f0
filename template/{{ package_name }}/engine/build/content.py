"""The fingerprint of the data, and `data.fingerprint=content`: hashes of the files themselves."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..api import Data
from ..config.schema import Config
from ..errors import UserError
from ..machine.distributed import from_main, is_main
from ..paths import checksums, files_below
from ..text import logger
from .target import locate, own_keys


def data_place(section: Mapping[str, Any]) -> tuple[str | None, Path]:
    """Return the key of `data` that names the place of its files, and the path; None: no key does."""
    for key in ("root", "path"):
        if isinstance(section.get(key), str):
            return key, Path(section[key]).expanduser().absolute()
    return None, Path()


def data_files(place: Path, cache: str | None = None) -> tuple[Path, list[str]]:
    """Return a folder and the names of all files at or below `place`, relative to the folder.

    Files of tools do not count, nor those in the folder `cache`. Raises `UserError`.
    """
    if place.is_file():
        return place.parent, [place.name]
    found = [Path(path) for path in files_below(place, ("",))]
    if cache is not None:
        cached = Path(cache).expanduser().absolute()
        found = [path for path in found if not path.is_relative_to(cached)]
    names = [str(path.relative_to(place)) for path in found]
    is_odd = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\]").search
    if odd := next(filter(is_odd, names), None):
        raise UserError(f"The file name {odd!r} has a control character or backslash. Rename it.")
    return place, names


def fingerprint_of(data: Data, config: Config) -> tuple[str, str]:
    """Return the fingerprint of the data, and with `data.fingerprint=content` a hash of each file.

    The hashes are lines as `sha256sum` writes them; "": there are none. Raises `UserError`.
    """
    own, sums, section = data.fingerprint(), "", config.data
    target = locate(section["_target_"], "data._target_", config.allowed_packages)
    wanted = section.get("fingerprint") if "fingerprint" in own_keys(target, "data") else None
    if wanted not in (None, "content"):
        raise UserError(f"data.fingerprint={wanted} is not possible. It must be content, or null.")
    if wanted is not None and is_main():
        key, place = data_place(section)
        found = checksums(*data_files(place, section.get("cache"))) if key else {}
        sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(found.items()))
        if sums:
            own += f"-{hashlib.sha256(os.fsencode(sums)).hexdigest()[:16]}"
        else:
            logger.warning(
                f"data.fingerprint=content finds no files of {section['_target_']}: no data.root or "
                "data.path names them. Its own fingerprint counts."
            )
    return from_main(own), sums
