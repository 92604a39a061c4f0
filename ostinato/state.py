"""What must survive a kill: which update is under way, and how to put the project back.

Two files in the project's git directory: a lock, held by the updater and inherited by the git that fast-forwards,
and a note of what is under way. The note is written before the project is touched and removed afterwards.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import Refused, Stopped
from .git import Git, Tree

BRANCH = "ostinato-update-"
"""Where an update that needs a hand is left, before the version's name."""
TRIED = "refs/ostinato/tried/"
"""What such a branch was when it was left, before the branch's name."""
TEMPLATE = "refs/ostinato/template"
"""The template's files of the newest version taken, as rendered."""
PATIENCE = 10.0
"""Seconds to wait for another update, or for the git that a killed one had started."""


@dataclass
class Note:
    temporary: str
    """The folder of temporary files."""
    head: str
    commit: str | None = None
    """What HEAD is to be fast-forwarded to; None while the project is only read."""


class State:
    def __init__(self, git: Git) -> None:
        """Takes the lock. Raises `Refused` where another update holds it."""
        folder = git.folder / git("rev-parse", "--git-dir")
        self.git, self.path = git, folder / "ostinato-update.json"
        self._lock = open(folder / "ostinato-update.lock", "a")  # noqa: SIM115 - open as long as the update
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise Refused("Another update of this project is running: wait for it or end it.") from None
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
        """Forgets the update, and deletes its temporary files."""
        note = self.read()
        if note is not None:
            shutil.rmtree(note.temporary, ignore_errors=True)
        self.path.unlink(missing_ok=True)

    def fast_forward(self, note: Note) -> None:
        """Moves HEAD, index and files to `note.commit`. Raises `Stopped` where git refuses."""
        assert note.commit is not None
        self.write(note)
        code, out, said = self.git.run(
            "merge", "--ff-only", "--no-overwrite-ignore", "--quiet", note.commit, pass_fds=(self._lock.fileno(),)
        )
        if code != 0:
            if self.git("status", "--porcelain"):  # else git refused before it touched anything
                self.put_back()
            self.clear()
            raise Stopped(f"git could not fast-forward: {said or out.decode(errors='replace').strip()}")

    def put_back(self) -> str | None:
        """Undoes what a killed update left behind; says what it did, None where there was nothing to do.

        Raises `Refused` where files were edited since.
        """
        note = self.read()
        if note is None:
            return None
        said = None
        if note.commit is not None:
            said = self._put_back_files(note.head, note.commit)
        self.clear()
        return said

    def _git_locks(self) -> list[Path]:
        names = ["index.lock", "HEAD.lock", "ORIG_HEAD.lock", f"{self.git.ask('symbolic-ref', 'HEAD') or 'HEAD'}.lock"]
        return [self.git.folder / self.git("rev-parse", "--git-path", name) for name in names]

    def _put_back_files(self, old: str, new: str) -> str | None:
        git = self.git
        head = git("rev-parse", "HEAD")
        if head == new:
            return "The update that was stopped had already been completed."
        if head != old:
            return None  # somebody went on from there
        top = Path(git("rev-parse", "--show-toplevel"))
        before, after = git.tree(old), git.tree(new)
        changed = sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))
        edited = [path for path in changed if not _is_from(git, top / path, path, before, after)]
        if edited:
            raise Refused(
                f"A stopped update is half-way, and {edited[0]} was edited since: save what you wrote elsewhere, run "
                f"`git checkout -- {edited[0]}` (or delete it, where git says it knows no such file), and try again."
            )
        for path in self._git_locks():  # left by the git that was killed: our own lock says that it is gone
            path.unlink(missing_ok=True)
        git("read-tree", "--reset", old)
        kept = {parent for path in before for parent in Path(path).parents}
        for path in (Path(path) for path in changed if path not in before):
            (top / path).unlink(missing_ok=True)
            for parent in path.parents:
                if parent not in kept and (top / parent).is_dir() and not any((top / parent).iterdir()):
                    (top / parent).rmdir()
        names = "".join(f"{path}\0" for path in changed if path in before)
        Git(top)("checkout-index", "--force", "--index", "-z", "--stdin", data=names.encode(errors="surrogateescape"))
        git.ask("update-index", "--refresh", "-q")
        return "The update that was stopped is undone."


def _is_from(git: Git, file: Path, path: str, before: Tree, after: Tree) -> bool:
    """Whether a file is as one of two trees has it, or a beginning of that, as a killed git leaves it."""
    if not os.path.lexists(file):
        return True
    if file.is_dir() and not file.is_symlink():
        return False
    content = os.fsencode(os.readlink(file)) if file.is_symlink() else file.read_bytes()
    plain = content.replace(b"\r\n", b"\n")  # on disk by .gitattributes
    for tree in (before, after):
        if path in tree:
            blob = git.blob(tree[path][1])
            if blob.startswith(content) or blob.replace(b"\r\n", b"\n").startswith(plain.removesuffix(b"\r")):
                return True
    return False


@contextmanager
def held(git: Git) -> Iterator[State]:
    state = State(git)
    try:
        yield state
    finally:
        state.close()
