"""State that survives a kill: which update is running, and how to restore the project.

Two files lie in the project's git directory: a lock and a note. The updater holds the lock, and the git that
fast-forwards inherits it. The note is written before the project is touched, and removed afterwards.
"""

import contextlib
import fcntl
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import Refused
from .git import Git, Tree

BRANCH = "ostinato-update-"
"""The branch of an update that needs the user: this, and the version's name."""
TRIED = "refs/ostinato/tried/"
"""The commit of such a branch as the updater left it: this, and the branch's name."""
TEMPLATE = "refs/ostinato/template"
"""The template's files of the last update, as rendered."""
PATIENCE = 10.0
"""Seconds to wait for another update, or for the git that a killed update started."""


@dataclass
class Note:
    temporary: str
    """The folder of temporary files."""
    head: str
    commit: str | None = None
    """The commit that HEAD moves to; None while the project is only read."""


class State:
    def __init__(self, git: Git) -> None:
        """Take the lock. Raises `Refused` if another update holds it."""
        folder = git.folder / git("rev-parse", "--git-dir")
        self.git, self.path = git, folder / "ostinato-update.json"
        self._lock = open(folder / "ostinato-update.lock", "a")  # noqa: SIM115 - stays open during the update
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise Refused("Another update of this project is running. Wait for it, or end it.") from None
                time.sleep(0.1)

    def close(self) -> None:
        self._lock.close()

    def write(self, note: Note) -> None:
        hidden = self.path.with_suffix(".tmp")
        with open(hidden, "w", encoding="utf-8") as file:
            json.dump(asdict(note), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, self.path)

    def read(self) -> Note | None:
        return Note(**json.loads(self.path.read_text(encoding="utf-8"))) if self.path.exists() else None

    def clear(self) -> None:
        """Forget the update and delete its temporary files."""
        note = self.read()
        if note is not None:
            shutil.rmtree(note.temporary, ignore_errors=True)
        self.path.unlink(missing_ok=True)

    def fast_forward(self, note: Note) -> None:
        """Move HEAD, index and files to `note.commit`. Raises `Refused` if git does not."""
        assert note.commit is not None
        self.write(note)
        before = self.git("status", "--porcelain")
        options = "-c", f"branch.{self.git.ask('symbolic-ref', '--short', 'HEAD')}.mergeOptions="  # none of the owner's
        merge = "merge", "--ff-only", "--no-overwrite-ignore", "--quiet", note.commit
        code, _, said = self.git.run(*options, *merge, pass_fds=(self._lock.fileno(),))
        if code != 0:
            if self.git("status", "--porcelain") != before:  # otherwise git refused before it touched anything
                self.put_back()
            self.clear()
            raise Refused(f"git could not fast-forward: {' '.join(said.split()).removesuffix(' Aborting')}")

    def put_back(self) -> str | None:
        """Undo what a killed update left behind. Return a message, or None if there was nothing to undo.

        Raises `Refused` if files were edited since.
        """
        note = self.read()
        said = self._put_back_files(note.head, note.commit) if note is not None and note.commit is not None else None
        self.clear()
        return said

    def _git_locks(self) -> list[Path]:
        names = ["index.lock", "HEAD.lock", "ORIG_HEAD.lock", f"{self.git.ask('symbolic-ref', 'HEAD') or 'HEAD'}.lock"]
        return [self.git.folder / self.git("rev-parse", "--git-path", name) for name in names]

    def _put_back_files(self, old: str, new: str) -> str | None:
        git = self.git
        head = git("rev-parse", "HEAD")
        if head == new:
            return "The killed update was already complete."
        if head != old:
            return None  # there are commits since
        top = Path(git("rev-parse", "--show-toplevel"))
        before, after = git.tree(old), git.tree(new)
        changed = sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))
        edited = [path for path in changed if not _is_from(git, top / path, path, before, after)]
        if edited:
            raise Refused(
                f"A killed update is half done, and {edited[0]} was edited since. Save your edits elsewhere, run "
                f"`git checkout -- {edited[0]}` (delete the file if git does not know it), and try again."
            )
        for path in self._git_locks():  # of the killed git: it has ended, because we hold the lock that it inherited
            path.unlink(missing_ok=True)
        git("read-tree", "--reset", old)
        for path in (top / path for path in changed if path not in before):
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # of a folder that is not empty
                os.removedirs(path.parent)
        skipped = {row[2:] for row in Git(top).names("ls-files", "-z", "-t") if row.startswith("S ")}  # not on the disk
        names = "".join(f"{path}\0" for path in changed if path in before and path not in skipped)
        Git(top)("checkout-index", "--force", "--index", "-z", "--stdin", data=names.encode(errors="surrogateescape"))
        git.ask("update-index", "--refresh", "-q")
        if git.ask("config", "core.sparseCheckout") == "true":  # files that the update had deleted
            git.ask("sparse-checkout", "reapply")
        return "The killed update is undone."


def _is_from(git: Git, file: Path, path: str, before: Tree, after: Tree) -> bool:
    """True if a file is as one of the trees has it, or a beginning of it, as a killed git leaves it."""
    if not os.path.lexists(file):
        return True
    if file.is_dir() and not file.is_symlink():
        return False
    content = os.fsencode(os.readlink(file)) if file.is_symlink() else file.read_bytes()
    plain = content.replace(b"\r\n", b"\n")  # .gitattributes may ask for CRLF on disk
    for tree in (before, after):
        if path in tree:
            blob = git.blob(tree[path][1])
            if blob.startswith(content) or blob.replace(b"\r\n", b"\n").startswith(plain.removesuffix(b"\r")):
                return True
    return False
