"""Format a project with Ruff and settings of its owner."""

import subprocess
import sys
from pathlib import Path

SETTINGS = ("line-length = 79", 'line-length = 100\nformat.indent-style = "tab"', "line-length = 140")


def format_with(settings: str, project: Path) -> None:
    """Write the settings into pyproject.toml, and format every file."""
    file = project / "pyproject.toml"
    text = file.read_text(encoding="utf-8")
    assert "line-length = 100\n" in text
    file.write_text(text.replace("line-length = 100", settings, 1), encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "format", "--quiet", "--no-cache", "."]
    subprocess.run(command, cwd=project, check=True)


def formatted(text: bytes, path: str, project: Path) -> bytes:
    """A text as Ruff formats the file `path` with the settings of the project."""
    command = [sys.executable, "-m", "ruff", "format", "--quiet", "--no-cache", "--stdin-filename", path, "-"]
    return subprocess.run(command, cwd=project, input=text, check=True, capture_output=True).stdout
