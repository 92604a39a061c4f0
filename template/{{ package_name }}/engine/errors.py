"""Exit codes, and the exceptions that end a run with one of them."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

FINISHED = 0

FAILED = 1

MISTAKE = 2

SAVE_FAILED = 74

STOPPED = 75

NOT_FINITE = 76

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system calls a full disk, a full quota, and a file as large as is allowed."""


class Exit(Exception):
    """Ends the run: `code` is the exit code, the text is the one sentence a person reads."""

    code = FAILED


class Failed(Exit):
    """The run failed for a reason that one sentence can tell."""


class UserError(Exit):
    """An override, config value, path or shape that cannot work."""

    code = MISTAKE


class SaveError(Exit):
    """No space left, or another I/O error while saving; earlier checkpoints are intact."""

    code = SAVE_FAILED


class Stopped(Exit):
    """A signal or the time limit ended the run after its step, and the run was saved."""

    code = STOPPED


class NotFiniteError(Exit):
    """The loss became infinite or NaN; nothing was saved after it."""

    code = NOT_FINITE


def one_line(error: BaseException) -> str:
    """What an exception says, without line breaks; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def own_words(error: Exception) -> str:
    """The sentence of an error, also where a loader worker wrapped it in its traceback."""
    text = str(error).strip()
    return text.splitlines()[-1].split("Error: ", 1)[-1] if text.startswith("Caught ") else text


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a sentence after a space, " Did you mean 'lr'?", or "" if no name is near."""
    names = [n for n in names if n != name and not name.startswith(f"{n}.")]
    last = name.rsplit(".", 1)[-1]
    close = [n for n in names if n == last]  # optimizer.lr for lr
    close = close or difflib.get_close_matches(name, names, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""
