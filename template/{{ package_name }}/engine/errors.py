"""Exit codes, and the exceptions that end a command with one of them.

     0  finished
     1  the run failed: an error in the code, the machine or the data; train.log has the traceback
     2  a mistake in an override, a config value, a path or a shape: one sentence, no run folder
    74  saving failed: no space or an I/O error; earlier checkpoints are whole
    75  stopped by a signal or `max_minutes`, and saved: go on with `resume=` (see signals.py)
    76  a loss, a gradient or a weight is infinite or NaN: nothing was saved after it
   128+n  ended at once by signal n, the second one

A sweep goes on after a failed job. It exits with 75 if a job was stopped, else with the largest
code of its jobs. torchrun hides the codes of its processes: read `status` in manifest.json.
"""

import difflib
import errno
from collections.abc import Iterable

FINISHED = 0
FAILED = 1
MISTAKE = 2
SAVE_FAILED = 74
STOPPED = 75
NOT_FINITE = 76

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # full disk, full quota, file at its limit


class Exit(Exception):
    """Ends the command. The text is for the person at the terminal."""

    code = FAILED  # the exit code
    status = "failed"  # in manifest.json, if training had begun


class Failed(Exit):
    """The run failed, and the reason is known."""


class UserError(Exit):
    code = MISTAKE


class SaveError(Exit):
    code = SAVE_FAILED
    status = "save failed"


class Stopped(Exit):
    code = STOPPED
    status = "stopped"


class NotFiniteError(Exit):
    code = NOT_FINITE
    status = "not finite"


def one_line(error: BaseException) -> str:
    """Return the text of an exception without line breaks, or its type if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


def own_words(error: Exception) -> str:
    """Return the text of an error, without the traceback that a loader worker adds."""
    text = str(error).strip()
    return text.splitlines()[-1].split("Error: ", 1)[-1] if text.startswith("Caught ") else text


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a sentence after a space, " Did you mean 'lr'?", or "" if no name is near."""
    names = [n for n in names if n != name and not name.startswith(f"{n}.")]
    last = name.rsplit(".", 1)[-1]
    # Someone may write optimizer.lr for lr.
    close = [last] if last in names else difflib.get_close_matches(name, names, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""
