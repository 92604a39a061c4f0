"""Read the template's CHANGELOG.md: its text between two versions, and the changes that it announces.

A section is `## VERSION` or `## VERSION (DATE)`. `## Unreleased` holds changes that have no version yet. A list item
announces a change if it begins in one of these ways. An update stops at such a change if it is not announced.

- **Numbers change**: …                  the same config gives other weights or values
- **Checkpoints change**: …              older runs cannot be resumed
- **Default changed** `keep_last`: …     a key has another default; several keys in backticks
- **Removed** `log.every`: …             a config key is gone, or a file of configs/: `optimizer=sgd`
"""

import re
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version


@dataclass(frozen=True)
class Changes:
    text: str
    numbers: bool
    checkpoints: bool
    defaults: frozenset[str]
    removed: frozenset[str]


def between(changelog: str, old: Version | None, new: Version | None) -> Changes:
    """Return the changes after `old` up to `new`. `new` is None for a commit without a version."""
    parts = re.split(r"^## +(.+)$", changelog, flags=re.MULTILINE)[1:]
    kept = []
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        name = title.split()[0].strip("[]")
        try:
            version = Version(name)
        except InvalidVersion:
            is_wanted = new is None or new.is_postrelease
        else:
            is_wanted = (old is None or version > old) and (new is None or version <= new)
        if is_wanted and body.strip():
            kept.append(f"## {title}\n\n{body.strip()}\n")
    text = "\n".join(kept)
    return Changes(
        text,
        _says(text, "Numbers change"),
        _says(text, "Checkpoints change"),
        _named(text, "Default changed"),
        _named(text, "Removed"),
    )


def _says(text: str, what: str) -> bool:
    return re.search(rf"^[-*] +\*\*{what}\*\*", text, re.MULTILINE) is not None


def _named(text: str, what: str) -> frozenset[str]:
    """Return the words in backticks before the colon of each item that begins with `what`."""
    items = re.findall(rf"^[-*] +\*\*{what}\*\*([^:]*)", text, re.MULTILINE)
    return frozenset(word for item in items for word in re.findall(r"`([^`]+)`", item))
