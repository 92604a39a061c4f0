"""CHANGELOG.md of the template: what it says between two versions, and what that announces.

A section is `## VERSION` or `## VERSION (DATE)`; `## Unreleased` holds what has no version yet. In it, a list item
that begins with one of these announces a change that an update would otherwise stop at:

- **Numbers change**: …                  runs with the same config end with other weights or values
- **Checkpoints change**: …              runs from before cannot be resumed
- **Default changed** `keep_last`: …     a key that existed has another default; several keys in backticks
- **Removed** `log.every`: …             a config key or a file of configs/ is no more: `optimizer=sgd`
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
    """What changed after `old` up to `new`; what is unreleased counts where `new` is None or after a release."""
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
    """The words in backticks before the colon of each item that begins so."""
    items = re.findall(rf"^[-*] +\*\*{what}\*\*([^:]*)", text, re.MULTILINE)
    return frozenset(word for item in items for word in re.findall(r"`([^`]+)`", item))
