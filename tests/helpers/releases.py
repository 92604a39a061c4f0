"""A throw-away repository of the template: every release, and the working tree as the newest version.

The releases are archives in tests/releases/, written by scripts/release.py. So tests of updates need neither tags nor
a network.
"""

import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from packaging.version import Version

ARCHIVES = Path(__file__).parents[1] / "releases"
RENDERED = ("copier.yml", "includes", "template", "CHANGELOG.md")
"""What an archive holds: all that rendering and updating read."""
KEPT = ".ostinato-rendered"
"""The file of a project that keeps what its last update rendered."""
NEWEST = "9999.0.0"
"""The version of the working tree."""


def versions() -> list[str]:
    """The releases that there are, oldest first."""
    return sorted((path.name.removesuffix(".tar.gz") for path in ARCHIVES.glob("*.tar.gz")), key=Version)


def unpack(version: str, folder: Path) -> Path:
    """A release's files."""
    with tarfile.open(ARCHIVES / f"{version}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def git(folder: Path, *arguments: str) -> str:
    """Run git with settings of its own, not with those of the tests' user."""
    settings = ["user.name=Test", "user.email=test@example.org", "commit.gpgsign=false", "core.autocrlf=false"]
    settings.append("core.safecrlf=false")
    options = [word for setting in settings for word in ("-c", setting)]
    return subprocess.check_output(["git", *options, *arguments], cwd=folder, text=True)


def commit(folder: Path, tag: str | None = None) -> None:
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--no-verify", "--allow-empty", "--message", tag or "All")
    if tag is not None:
        git(folder, "tag", tag)


def repository(folder: Path, newest: Path) -> Path:
    """Build the repository in `folder`. `newest` holds the template's working tree. Every version has a tag."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    for version in [*versions(), NEWEST]:
        for name in RENDERED:
            shutil.rmtree(folder / name, ignore_errors=True)
        if version != NEWEST:
            unpack(version, folder)
        else:
            for name in RENDERED:
                copy = shutil.copytree if (newest / name).is_dir() else shutil.copy2
                copy(newest / name, folder / name)
            changes = folder / "CHANGELOG.md"
            text = changes.read_text(encoding="utf-8")
            changes.write_text(re.sub("^## Unreleased$", f"## {NEWEST}", text, flags=re.MULTILINE), encoding="utf-8")
        commit(folder, version)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """All files in a folder, except those of git and compiled Python."""
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    kept = {".git", "__pycache__"}
    return {name.as_posix(): path.read_bytes() for name, path in paths.items() if not kept.intersection(name.parts)}


def template_part(folder: Path, owned: Callable[[str], bool]) -> dict[str, bytes]:
    """The template's files of a project. Only new projects are lean, which the answers file says.

    The archive that an update keeps is no file of the template.
    """
    own = {path: content for path, content in files(folder).items() if not owned(path)}
    own.pop(KEPT, None)
    answers = own[".copier-answers.yml"]
    return own | {".copier-answers.yml": answers.replace(b'"lean": true', b'"lean": false')}
