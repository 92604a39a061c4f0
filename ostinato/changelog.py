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

from packaging.version import Version

from .render import as_version

ITEM = re.compile(r"^(?=[-*] |#)", re.MULTILINE)
"""Where an item of a list, or a section, begins."""
LONG = 80
"""The lines of a text that nobody reads to its end in a terminal."""


@dataclass(frozen=True)
class Changes:
    text: str
    numbers: bool
    checkpoints: bool
    defaults: frozenset[str]
    removed: frozenset[str]

    def brief(self) -> str:
        """Return the text. Of a long one, only what an owner has to know: bold items, without **Fixed**."""
        items = re.split(ITEM, self.text)
        kept = [item for item in items if re.match(r"## |[-*] +\*\*(?!Fixed\*)", item)]
        others = sum(item[:2] in ("- ", "* ") for item in items) - sum(item[0] != "#" for item in kept)
        if self.text.count("\n") < LONG or not others:
            return self.text
        return f"{''.join(kept)}\n… and {others} other changes: read CHANGELOG.md of the template.\n"


def between(changelog: str, old: Version | None, before: str = "") -> Changes:
    """Return the changes that come after the version `old` and that an older changelog, `before`, does not list."""
    parts = re.split(r"^## +(.+)$", changelog, flags=re.MULTILINE)[1:]
    known, kept = {item.strip() for item in re.split(ITEM, before)}, []
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        version = as_version(title.split()[0].strip("[]"))
        items = [item for item in re.split(ITEM, body) if item.strip() not in known | {""}]
        if items and (old is None or version is None or version > old):
            kept.append(f"## {title}\n\n{''.join(items).strip()}\n")
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
