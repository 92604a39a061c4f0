"""Versions of the template: fetch them, render them, and tell which files are the user's."""

import io
import lzma
import re
import tarfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import copier
import yaml
from jinja2 import FileSystemLoader
from jinja2.sandbox import SandboxedEnvironment
from packaging.version import InvalidVersion, Version
from pathspec import PathSpec

from .errors import Refused
from .git import Git

ANSWERS = ".copier-answers.yml"
RENDERED = ".ostinato-rendered"
"""The file of a project that keeps what its last update rendered. The next update compares with it."""
LARGEST = 64 * 2**20
"""Bytes that such a file may unpack to. The template's files have fewer than 2 MiB."""
Answers = Mapping[str, Any]
SHORT = {"gh": "https://github.com/", "gl": "https://gitlab.com/"}


class Source:
    """A clone of the template's repository, with all versions."""

    def __init__(self, url: str, project: Path, folder: Path) -> None:
        """`url` is `_src_path` of the answers. Raises `Refused` if it cannot be reached."""
        self.url = self.reached = url
        host, _, rest = url.partition(":")
        if host in SHORT:
            self.reached = SHORT[host] + rest.lstrip("/")
        elif url.startswith("git+"):
            self.reached = url.removeprefix("git+")
        elif (local := (project / Path(url).expanduser())).exists():
            self.reached = str(local.resolve())
        self.folder = folder.with_suffix(".git")  # Copier takes a folder of this name for a repository
        code, _, said = Git(project).run("clone", "--quiet", "--bare", "--", self.reached, str(self.folder))
        if code != 0:
            why = said.splitlines()[-1].removeprefix("fatal: ") if said else "git clone failed"
            raise Refused(
                f"The template's source {url!r} cannot be reached: {why.rstrip('.')}. "
                "Check the network, or name the template's present address with --source."
            )
        self.git = Git(self.folder)
        if self.git.ask("cat-file", "-e", "HEAD:copier.yml") is None:
            raise Refused(
                f"The template's source {url!r} is not the template: it has no copier.yml. "
                "Name the template's address with --source."
            )

    def versions(self) -> list[str]:
        """Return the released versions in order."""
        found = [tag for tag in self.git("tag", "--list").split() if as_version(tag) is not None]
        return sorted(found, key=Version)

    def newest(self) -> str:
        """Return the newest version that is not a pre-release. Raises `Refused`."""
        found = [tag for tag in self.versions() if not Version(tag).is_prerelease]
        if not found:
            raise Refused(
                f"The template at {self.url} has no released version yet. Use --to HEAD for its newest commit."
            )
        return found[-1]

    def commit(self, version: str) -> str | None:
        """Return the commit of a version (a tag, HEAD, a commit or a name from `git describe`), or None."""
        if version.startswith("-"):
            return None
        name = "rev-parse", "--verify", "--quiet", f"{version}^{{commit}}"
        found = self.git.ask(*name)
        if found is None and re.fullmatch("[0-9a-f]{40,64}", version):  # no branch or tag leads to it any more
            self.git.run("fetch", "--quiet", "--", self.reached, version)
            found = self.git.ask(*name)
        return found

    def questions(self, commit: str) -> list[str]:
        """Return the questions of a version."""
        return [key for key in yaml.safe_load(self.git("show", f"{commit}:copier.yml")) if not key.startswith("_")]


def as_version(name: str) -> Version | None:
    """Return a tag, or a name such as 0.2.0-3-gabcdef1, as a version that can be compared; else None."""
    if re.fullmatch(r"[0-9a-f]{7,40}", name):  # a commit, in a repository without tags
        return None
    steps = re.fullmatch(r"(.+)-(\d+)-g[0-9a-f]+", name)
    try:
        return Version(f"{steps[1]}.post{steps[2]}" if steps else name)
    except InvalidVersion:
        return None


def rendered(
    source: str, version: str, answers: Answers, dst: Path, address: str | None = None, answers_file: str = ANSWERS
) -> Path:
    """Render a version of the template with these answers into `dst`. New questions take their defaults.

    The result names `address` as the template's, by default `source`. Raises `Refused`.
    """
    data = {key: value for key, value in answers.items() if not key.startswith("_")}
    said = io.StringIO()  # takes Copier's warnings, such as about a local template
    try:
        with warnings.catch_warnings(), redirect_stderr(said):
            warnings.simplefilter("ignore")
            options = {"data": data, "answers_file": Path(answers_file), "defaults": True, "quiet": True}
            _copy(source, address or source, dst, options | {"vcs_ref": version})
    except Exception as error:  # a template or an answer can make Copier raise anything
        why = " ".join(str(error).split()) or type(error).__name__
        if asked := re.search(r"""(?:question|choice for) ['"](\w+)""", why):
            why = f"{why.rstrip('.')}. Give another answer with --data {asked[1]}=…"
        raise Refused(
            f"The template at {version} cannot be rendered with the answers in {answers_file}: {why}"
        ) from error
    return dst


def _copy(source: str, address: str, dst: Path, options: dict[str, Any]) -> None:
    """Run Copier without the user's own settings. Only its private class can name another address than `source`."""
    try:
        from copier._main import Worker
    except ImportError:
        copier.run_copy(address, dst, settings=copier.Settings(), **options)
        return

    class Renderer(Worker):
        """Takes a third of Copier's time: it reads each text once, and asks git nothing about a folder without git."""

        @cached_property
        def jinja_env(self) -> SandboxedEnvironment:
            environment: Any = super().jinja_env
            environment.from_string = cache(environment.from_string)
            return environment

        def _sync_git_index_executable_bit(self, *_: object) -> None:
            pass

        def _answers_to_remember(self) -> Mapping[str, Any]:
            return {**super()._answers_to_remember(), "_src_path": address}

    with Renderer(src_path=source, dst_path=dst, **options) as renderer:
        renderer.run_copy()


def packed(folder: Path) -> bytes:
    """Return the files of a rendered folder as an archive: the same files give the same bytes."""

    def without_owner(about: tarfile.TarInfo) -> tarfile.TarInfo:
        mode = 0o755 if about.mode & 0o100 else 0o644
        return about.replace(mtime=0, uid=0, gid=0, uname="", gname="", mode=mode, deep=False)

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:xz") as files:
        for path in sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file()):
            files.add(path, path.relative_to(folder), filter=without_owner)
    return archive.getvalue()


def unpacked(archive: bytes, folder: Path) -> Path:
    """Write the files of an archive into a new folder. Raises `tarfile.TarError` or `lzma.LZMAError`."""
    unpacker = lzma.LZMADecompressor()
    content = unpacker.decompress(archive, max_length=LARGEST)
    if not unpacker.eof:
        raise lzma.LZMAError  # cut off, or too large
    with tarfile.open(fileobj=io.BytesIO(content)) as files:
        files.extractall(folder, filter="data")
    return folder


def answers_in(text: str, name: str) -> dict[str, Any]:
    """Return the content of an answers file. Raises `Refused`."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Refused(f"{name} cannot be read: {' '.join(str(error).split())}. Correct it and commit.") from error
    if not isinstance(found, dict):
        raise Refused(f"{name} holds no answers. Restore it from git's history.")
    return found


def ownership(template: Path, answers: Answers) -> Callable[[str], bool]:
    """Return a function that is true for the user's paths; `template` is a checkout of a version.

    `_exclude` in copier.yml decides: Copier leaves the user's files out of an update, but not out of a copy.
    """
    patterns = yaml.safe_load((template / "copier.yml").read_text(encoding="utf-8"))["_exclude"]
    environment = SandboxedEnvironment(loader=FileSystemLoader(str(template)), autoescape=False)

    def excluded(operation: str) -> Callable[[str], bool]:
        texts = (environment.from_string(p).render(**answers, _copier_operation=operation) for p in patterns)
        return PathSpec.from_lines("gitignore", (line for text in texts for line in text.splitlines())).match_file

    in_update, in_copy = excluded("update"), excluded("copy")
    return lambda path: in_update(path) and not in_copy(path)


def moved_code(template: Path, package: str) -> dict[str, list[str]]:
    """Return where a version moved code of the package to: old path → new paths. Versions before 0.3.0 do not say."""
    table = template / "includes/moved.yml"
    found = yaml.safe_load(table.read_text(encoding="utf-8")) if table.is_file() else {}
    return {f"{package}/{old}": [f"{package}/{path}" for path in new] for old, new in found.items()}
