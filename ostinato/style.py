"""Write the template's files as the owner writes files, so that formatting and line endings alone never conflict."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import yaml

HOOKS = ".pre-commit-config.yaml"
SETTINGS = ("pyproject.toml", "ruff.toml", ".ruff.toml", HOOKS)
"""Files that say how to format, in any folder."""
BLACK = re.compile(rb"^\[tool\.black|\bid: black", re.MULTILINE)
Texts = Mapping[str, bytes]


def formatter(project: Path, settings: Texts) -> list[str] | None:
    """Return the command that formats a folder: Black if the settings name it, else Ruff. None if there is none.

    The project's own comes first, then the updater's, then that of PATH, then one from uv.
    """
    name = "black" if any(map(BLACK.search, settings.values())) else "ruff"
    options = ["--quiet"] if name == "black" else ["format", "--quiet", "--no-cache"]
    options += [*_of_hooks(name, settings.get(HOOKS, b"")), "."]
    for place in (project / ".venv/bin", Path(sys.executable).parent, None):
        if (found := shutil.which(name, path=place and str(place))) is not None:
            return [found, *options]
    uv = os.environ.get("UV") or shutil.which("uv")
    return [uv, "tool", "run", name, *options] if uv else None


def _of_hooks(name: str, text: bytes) -> list[str]:
    """Return the options that hooks of pre-commit give to the formatter."""
    with contextlib.suppress(yaml.YAMLError, LookupError, TypeError):
        hooks = [hook for repository in yaml.safe_load(text)["repos"] for hook in repository["hooks"]]
        of_formatter = (
            hook for hook in hooks if hook["id"] in ("black", "black-jupyter", "ruff-format") and name in hook["id"]
        )
        return [str(argument) for hook in of_formatter for argument in hook.get("args", ())]
    return []


def formatted(command: list[str], texts: Texts, settings: Texts, folder: Path) -> dict[str, bytes]:
    """Return Python files as the formatter writes them below these settings. A text with errors stays as it is."""
    texts = {path: text for path, text in texts.items() if path.endswith(".py")}
    for path, text in {**texts, **settings}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text)
    with contextlib.suppress(OSError):  # such as a program of an environment that was moved
        subprocess.run(command, cwd=folder, capture_output=True)
    return {path: (folder / path).read_bytes() for path in texts}


def as_the_owner_writes(
    project: Path, settings: Texts, mine: Texts, old: Texts, new: Texts, scratch: Path
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return old and new texts, formatted and with CRLF where the owner's text of the same path is.

    If the owner formatted any text, new texts without an older one are formatted, too. Without `settings` none is.
    """
    old, new = dict(old), dict(new)
    command = formatter(project, settings) if settings and mine else None
    if command is not None:
        pretty = formatted(command, old, settings, scratch / "old")
        closer = {path for path in pretty if _distance(pretty[path], mine[path]) < _distance(old[path], mine[path])}
        if closer:
            farther = {path for path in old if path not in closer and pretty.get(path) != old[path]}
            old |= {path: pretty[path] for path in closer}
            wanted = {path: text for path, text in new.items() if path not in farther}
            new |= formatted(command, wanted, settings, scratch / "new")
    for path, text in mine.items():
        if _is_crlf(text) and not _is_crlf(old[path]):
            for version in (old, new):
                if path in version:
                    version[path] = version[path].replace(b"\n", b"\r\n")
    return old, new


def _distance(one: bytes, other: bytes) -> int:
    """Return how many lines are in one text only. Line endings do not count."""
    lines, others = (Counter(line.rstrip() for line in text.splitlines()) for text in (one, other))
    return ((lines - others) + (others - lines)).total()


def _is_crlf(text: bytes) -> bool:
    return b"\r\n" in text and text.count(b"\r\n") == text.count(b"\n")
