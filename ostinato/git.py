"""Run git in the same way, whatever the user's settings are."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .errors import Refused

Entry = tuple[str, str]
"""Mode and object id of a file."""
Tree = dict[str, Entry]
"""The files of a tree by path, with `/` between folders."""

SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.quotePath": "false",
    "diff.renameLimit": "0",
    "grep.patternType": "basic",
    "log.follow": "false",
    "log.showRoot": "true",
    "log.showSignature": "false",
    "merge.verifySignatures": "false",
    "safe.bareRepository": "all",
    "status.renames": "false",
    "status.showUntrackedFiles": "normal",
    "submodule.recurse": "false",
    "gc.auto": "0",
}
AT_LEAST = (2, 38)  # no older one was tried


class GitFailed(Exception):
    """A git command failed unexpectedly."""


class Git:
    """`git("status", "-z")` runs git in a folder and returns its output. Raises `GitFailed`."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder, self.env = folder, env
        self.blobs: dict[str, bytes] = {}
        """What was read or written, by object id."""

    def run(self, *arguments: str, data: bytes = b"", pass_fds: tuple[int, ...] = ()) -> tuple[int, bytes, str]:
        settings = [word for key, value in SETTINGS.items() for word in ("-c", f"{key}={value}")]
        done = subprocess.run(
            ["git", *settings, *arguments],
            cwd=self.folder,
            input=data,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C", **self.env},
            pass_fds=pass_fds,
        )
        return done.returncode, done.stdout, done.stderr.decode(errors="replace").strip()

    def output(self, *arguments: str, data: bytes = b"") -> bytes:
        code, out, said = self.run(*arguments, data=data)
        if code != 0:
            raise GitFailed(f"git {' '.join(arguments[:2])}: {said or out.decode(errors='replace').strip()}")
        return out

    def __call__(self, *arguments: str, data: bytes = b"") -> str:
        return self.output(*arguments, data=data).decode(errors="surrogateescape").rstrip("\n")

    def ask(self, *arguments: str) -> str | None:
        """Return the output, or None if git fails."""
        code, out, _ = self.run(*arguments)
        return out.decode(errors="surrogateescape").rstrip("\n") if code == 0 else None

    def names(self, *arguments: str) -> list[str]:
        """Return the names that a command with -z prints."""
        return [name for name in self(*arguments).split("\0") if name]

    def tree(self, tree: str) -> Tree:
        files: Tree = {}
        for row in self.names("ls-tree", "-r", "-z", "--full-tree", tree):
            about, path = row.split("\t", 1)
            mode, _, oid = about.split(" ")
            files[path] = mode, oid
        return files

    def write_tree(self, files: Mapping[str, Entry]) -> str:
        """Write a tree with these files and return its id."""
        git = self._with_work_tree(self.folder)
        rows = "".join(f"{mode} {oid}\t{path}\0" for path, (mode, oid) in files.items())
        git("update-index", "-z", "--index-info", data=rows.encode(errors="surrogateescape"))
        return git("write-tree", "--missing-ok")  # of a partial clone

    def tree_of_folder(self, folder: Path) -> Tree:
        """Store the files of a folder, ignored ones too. Line endings follow the folder's .gitattributes."""
        git = self._with_work_tree(folder)
        git("-c", f"core.attributesFile={os.devnull}", "-c", "core.fileMode=true", "add", "--force", "--all", ".")
        return self.tree(git("write-tree"))

    def checkout(self, tree: str, folder: Path) -> Path:
        """Write the files of a tree into a new folder."""
        folder.mkdir(parents=True)
        git = self._with_work_tree(folder)
        git("read-tree", tree)
        git("checkout-index", "--all", "--force")
        return folder

    def _with_work_tree(self, folder: Path) -> "Git":
        """Return this bare repository with a work tree and an empty index."""
        index = self.folder / "ostinato-index"
        index.unlink(missing_ok=True)
        place = {"GIT_DIR": str(self.folder), "GIT_WORK_TREE": str(folder), "GIT_INDEX_FILE": str(index)}
        return Git(folder, **self.env, **place, GIT_ATTR_NOSYSTEM="1")

    def write_blob(self, content: bytes) -> str:
        oid = self("hash-object", "-w", "--stdin", data=content)
        self.blobs[oid] = content
        return oid

    def blob(self, oid: str) -> bytes:
        if oid not in self.blobs:
            self.blobs[oid] = self.output("cat-file", "blob", oid)
        return self.blobs[oid]


def check_version() -> None:
    """Raise `Refused` if git is missing or too old."""
    if shutil.which("git") is None:
        raise Refused("git is not installed. An update needs git 2.38 or newer.")
    words = subprocess.check_output(["git", "--version"], text=True).split()
    numbers = tuple(int(part) for part in words[2].split(".")[:2])
    if numbers < AT_LEAST:
        raise Refused(f"git {words[2]} is too old for an update. Install git 2.38 or newer.")


def forget_environment() -> None:
    """Drop the variables through which a git hook or alias points this process to its own repository."""
    for name in subprocess.check_output(["git", "rev-parse", "--local-env-vars"], text=True).split():
        if not name.startswith("GIT_CONFIG"):
            os.environ.pop(name, None)
