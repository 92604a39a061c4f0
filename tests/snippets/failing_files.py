"""Run a command and make one of its file operations fail: `failing_files.py SCRIPT ARGUMENT…`.

Counted are the operations of the process below the folder BELOW that can meet the FAULT: an error such as ENOSPC,
or SIGKILL. The one of this NUMBER meets it, and with LASTING each later one. The file NOTE gets their names, and
how many can meet each fault.
"""

import builtins
import errno
import fcntl
import io
import json
import os
import runpy
import signal
import sys
import threading

CREATING = {"create", "write", "close", "fsync", "replace", "rename", "mkdir", "link", "symlink", "truncate"}
NAMING = {"create", "append", "replace", "rename", "mkdir", "link", "symlink", "unlink", "remove", "rmdir"}
CHANGING = CREATING | NAMING
READING = {"open", "read", "scandir", "listdir", "lockf"}
MEETS = {
    "ENOSPC": CREATING,
    "EDQUOT": CREATING,
    "EROFS": NAMING,
    "EACCES": NAMING | {"open", "scandir", "listdir"},
    "EIO": CHANGING | READING,
    "SIGKILL": CHANGING,
}
owner, below, lock, noted = os.getpid(), os.path.realpath(os.environ["BELOW"]), threading.Lock(), []
counts = dict.fromkeys(MEETS, 0)
fault, at, lasting = os.environ["FAULT"], int(os.environ["NUMBER"]), "LASTING" in os.environ
plain = {"open": io.open, "readlink": os.readlink}


def place(path, folder=None):
    """The path of a file, or None if it is not counted."""
    try:
        if isinstance(path, int):
            path = plain["readlink"](f"/proc/self/fd/{path}")
        elif isinstance(folder, int):
            path = os.path.join(plain["readlink"](f"/proc/self/fd/{folder}"), os.fspath(path))
        path = os.path.abspath(os.fsdecode(path))
    except (OSError, TypeError):
        return None
    return path if f"{path}/".startswith(f"{below}/") and os.getpid() == owner else None


def fails(what, path):
    """Count an operation. Return its error, or None. Kill the process if this is its fault."""
    if path is None:
        return None
    with lock:
        for name in MEETS:
            counts[name] += what in MEETS[name]
        if what not in MEETS[fault]:
            return None
        noted.append(f"{what} {os.path.relpath(path, below)}")
        number = len(noted)
    if number == at and fault == "SIGKILL":
        os.kill(owner, signal.SIGKILL)
    if number == at or (lasting and 0 < at < number):
        code = getattr(errno, fault)
        return OSError(code, os.strerror(code), path)
    return None


def meet(what, path):
    if (error := fails(what, path)) is not None:
        raise error


class File(io.FileIO):
    """A file whose operations are counted. A write that fails has written the half."""

    written = False

    def _meet(self, what):
        if (error := fails(what, self.place)) is not None:
            raise OSError(error.errno, error.strerror)  # as the system does: it knows no name

    def write(self, data):
        self.written = True
        try:
            self._meet("write")
        except OSError:
            super().write(memoryview(data).cast("B")[: len(data) // 2])
            raise
        return super().write(data)

    def truncate(self, size=None):
        self._meet("truncate")
        return super().truncate(size)

    def readinto(self, buffer):
        self._meet("read")
        return super().readinto(buffer)

    def readall(self):
        self._meet("read")
        return super().readall()

    def close(self):
        """Some file systems tell only here that an earlier write has failed."""
        was_open = not self.closed
        super().close()
        if was_open and self.written:
            self._meet("close")


def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
    """The built-in open."""
    path = None if isinstance(file, int) or opener is not None else place(file)
    if path is None:
        return plain["open"](file, mode, buffering, encoding, errors, newline, closefd, opener)
    writes = bool(set("wxa+") & set(mode))
    what = "open" if not writes else "append" if "a" in mode or "r" in mode else "create"
    meet(what, path)
    raw = File(file, mode.replace("b", "").replace("t", ""))
    raw.place = path
    if buffering == 0:
        return raw
    kind = io.BufferedRandom if "+" in mode else io.BufferedWriter if writes else io.BufferedReader
    buffered = kind(raw)
    if "b" in mode:
        return buffered
    text = io.TextIOWrapper(buffered, encoding, errors, newline, buffering == 1)
    text.mode = mode
    return text


def counted(module, what):
    """Count the calls of a function whose first argument is a path or a descriptor."""
    call = getattr(module, what)

    def function(*arguments, **options):
        folder = options.get("dir_fd", options.get("src_dir_fd"))
        meet(what, place(arguments[0] if arguments else options.get("path", "."), folder))
        return call(*arguments, **options)

    setattr(module, what, function)


def locked(file, *arguments):
    meet("lockf", place(file if isinstance(file, int) else file.fileno()))
    return plain["lockf"](file, *arguments)


for name in ("fsync", "replace", "rename", "mkdir", "link", "symlink", "unlink", "remove", "rmdir", "truncate"):
    counted(os, name)
for name in ("scandir", "listdir"):
    counted(os, name)
plain["lockf"], fcntl.lockf = fcntl.lockf, locked
builtins.open = io.open = opened
sys.argv = sys.argv[1:]
try:
    if os.path.basename(sys.argv[0]) == "__main__.py":
        sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0])))
        runpy.run_module(os.path.basename(os.path.dirname(sys.argv[0])), run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    with plain["open"](os.environ["NOTE"], "w") as note:
        json.dump([noted, counts], note)
