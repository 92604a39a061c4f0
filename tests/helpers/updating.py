"""The two ways of updating a project in a test: plain Copier, and what the checked update merges."""

import io
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import copier
import yaml

from helpers.once import named_after, once
from helpers.releases import NEWEST, commit, git
from ostinato.merge import Merge, merge
from ostinato.render import moved_code, ownership, rendered

QUIET: dict[str, Any] = {"defaults": True, "quiet": True, "unsafe": False, "overwrite": True}


def plain_update(project: Path, version: str = NEWEST) -> None:
    """`copier update`, and its result committed."""
    copier.run_update(project, vcs_ref=version, settings=copier.Settings(), **QUIET)
    commit(project)


def answers_of(project: Path) -> dict[str, Any]:
    answers: dict[str, Any] = yaml.safe_load((project / ".copier-answers.yml").read_text(encoding="utf-8"))
    return answers


class Versions:
    """Versions of the template rendered with given answers, each once."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.repository, self.folder = repository, folder
        self.made: dict[str, tuple[Path, Any]] = {}
        self.templates: dict[str, Path] = {}
        """A folder with copier.yml and includes/ of each version."""

    def get(self, version: str, answers: Mapping[str, Any]) -> tuple[Path, Any]:
        """The rendered folder, and whether a path of it is the user's."""
        given = {key: value for key, value in answers.items() if not key.startswith("_")}
        key = named_after(version, sorted(given.items()))

        def make(folder: Path) -> None:
            folder.mkdir()
            rendered(str(self.repository), version, given, folder / "project")
            git(self.repository, "archive", f"--output={folder}/template.tar", version, "copier.yml", "includes")
            with tarfile.open(folder / "template.tar") as archive:
                archive.extractall(folder / "template", filter="data")

        if key not in self.made:
            folder = once(self.folder / key, make)
            self.made[key] = folder / "project", ownership(folder / "template", given)
            self.templates[version] = folder / "template"
        return self.made[key]


def checked_update(project: Path, versions: Versions, scratch: Path, version: str = NEWEST) -> Merge:
    """Merge as the checked update does, without running its checks."""
    answers = answers_of(project)
    (old, in_old), (new, in_new) = (versions.get(name, answers) for name in (answers["_commit"], version))
    package = answers["package_name"]
    moved = moved_code(versions.templates[version], package)
    owned = lambda path: in_old(path) or in_new(path)  # noqa: E731
    return merge(project, old, new, owned, scratch, moved=moved, package=package, version=version)


def contents(repository: Path, tree: str) -> dict[str, bytes]:
    """The files of a tree."""
    archive = subprocess.check_output(["git", "archive", tree], cwd=repository)
    with tarfile.open(fileobj=io.BytesIO(archive)) as unpacked:
        return {about.name: unpacked.extractfile(about).read() for about in unpacked if about.isfile()}


def apply(merged: Merge, project: Path) -> None:
    """Set the project to the merge's result."""
    git(project, "fetch", "--quiet", str(merged.scratch), merged.commit)
    git(project, "reset", "--quiet", "--hard", merged.commit)


def write(folder: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def state(project: Path) -> dict[str, object]:
    """All that a failed update must leave as it was: files, ignored ones too, the index and HEAD."""
    found: dict[str, object] = {
        "head": git(project, "rev-parse", "HEAD"),
        "on": git(project, "branch", "--show-current"),
    }
    found["index"] = git(project, "ls-files", "--stage")
    found["status"] = git(project, "status", "--porcelain", "--ignored")
    for path in project.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            found[str(path)] = (path.read_bytes(), path.stat().st_mode)
        elif path.is_dir() and ".git" not in path.parts:
            found[str(path)] = None
    return found


def edit(project: Path, files: dict[str, str | None]) -> None:
    """Write these files, delete those whose text is None, and commit."""
    for path, text in files.items():
        if text is None:
            (project / path).unlink()
        else:
            write(project, {path: text})
    commit(project)
