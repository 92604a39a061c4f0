"""The pages of the docs: the files that they hold, and the commands that they show."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from helpers.template import ROOT

DOCS = ROOT / "docs"
SHELLS = ("bash", "console")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PLACE = re.compile(r"# ((?:my_project|configs)/[\w/]+\.(?:py|yaml)|\w+\.py)\b[^\n]*\n")


def blocks(text: str) -> list[tuple[str, str]]:
    """Return the language and the text of each block of a page."""
    return _BLOCK.findall(text)


def files(text: str) -> dict[str, str]:
    """Return the files that a page holds, by their place in a project of the package `digits`."""
    found = {}
    for language, block in blocks(text):
        place = _PLACE.match(block)
        if language in ("python", "yaml") and place:
            found[place[1].replace("my_project/", "digits/")] = block[place.end() :]
    return found


def install(page: Path, project: Path) -> None:
    """Write the files of a page into a project of the package `digits`."""
    for place, text in files(page.read_text(encoding="utf-8")).items():
        (project / place).parent.mkdir(parents=True, exist_ok=True)
        (project / place).write_text(text, encoding="utf-8")


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command line of Python or of a run that a page shows."""
    lines = [
        line
        for language, block in blocks(text.replace(" \\\n", " "))
        if language in SHELLS
        for line in block.splitlines()
    ]
    lines += re.findall(r"`(python (?:train|find_lr)\.py [^`]+)`", _BLOCK.sub("", text))
    for line in lines:
        command = re.search(
            r"\bpython (train\.py|find_lr\.py|-m my_project)\b.*", line.replace("\\|", "|").rstrip("\\")
        )
        if command and "$(python" not in line:
            yield shlex.split(re.sub(r" *(;|&&|\|\||\| tail| > |&$).*", "", command[0]), comments=True)[1:]
