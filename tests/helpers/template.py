"""Where the template lies, what it offers, and answers that are tested throughout."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
POINTS = {path.name.split("'")[1]: path for path in (ROOT / "template").glob("{% if starting_point == *")}
"""The folder of what is rendered for each starting point alone."""
CONFIGS = {
    f"{path.parent.name}/{path.stem}": path
    for folder in (ROOT / "template", POINTS["image_classification"])
    for path in sorted(folder.glob("configs/*/*.yaml"))
}
"""Every choice of the default project by "group/name"."""
PROFILES: dict[str, dict[str, str]] = {
    "defaults": {},
    "github": {"project_name": "Cats & Dogs", "ci": "github"},
    "gitlab": {"package_name": "x", "ci": "gitlab"},
    "none": {"package_name": "a_1_", "description": "", "author": "", "ci": "none"},
    "unicode": {"project_name": "图像分类 🐈", "author": "Zoë"},
    **{point: {"starting_point": point} for point in POINTS},
}
"""Answers to the questions, by a name for the test."""
LEFTOVERS = {".git", ".venv", "__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache"}


def working_tree() -> list[Path]:
    """The files that a commit of everything would hold, relative to the root."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.check_output(command, cwd=ROOT, text=True).split("\0")
        files = {Path(name) for name in names if name}
    else:  # an unpacked archive
        files = {path.relative_to(ROOT) for path in ROOT.rglob("*")}
        files = {path for path in files if not LEFTOVERS.intersection(path.parts)}
    return sorted(path for path in files if (ROOT / path).is_file())
