"""Format a project with Ruff and settings of its owner."""

import subprocess
import sys
import tempfile
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


def formatted(texts: dict[str, bytes], project: Path) -> dict[str, bytes]:
    """Files as Ruff formats them with the settings of the project."""
    with tempfile.TemporaryDirectory() as folder:
        for path, text in {**texts, "pyproject.toml": (project / "pyproject.toml").read_bytes()}.items():
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).write_bytes(text)
        subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", "--no-cache", "."], cwd=folder, check=True)
        return {
            path: text if path == "pyproject.toml" else (Path(folder) / path).read_bytes()
            for path, text in texts.items()
        }
