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
import re
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


class DeviceError(UserError):
    """An error that one process may have alone, so each process says its own."""


class SaveError(Exit):
    code = SAVE_FAILED
    status = "save failed"


class Stopped(Exit):
    code = STOPPED
    status = "stopped"


class NotFiniteError(Exit):
    code = NOT_FINITE
    status = "not finite"


_OF_DEVICE = {
    "CUDA (error: )?out of memory|_STATUS_ALLOC_FAILED": "The GPU's memory is too small. Choose a "
    "smaller model or batch_size, or end other programs on this GPU.",
    "CUDA.*(unavailable|not yet initialized|initialization error|unknown error)": "The GPU is busy "
    "or does not start. End other programs on it (nvidia-smi lists them), or set device=cpu.",
    "CUDA.*no kernel image|driver.*(too old|insufficient)": "The GPU, its driver and this build of "
    "torch do not fit together. Update the driver, or install another build of torch.",
    r"(\S+) does not have a deterministic implementation": "{} cannot be computed deterministically "
    "on this device. Use another, or set deterministic=warn: then runs no longer repeat.",
}


def of_device(error: BaseException) -> str:
    """Return a sentence for an error that the device causes, whatever it computes; or ""."""
    found = ((re.search(text, str(error)), told) for text, told in _OF_DEVICE.items())
    return next((told.format(*match.groups()) for match, told in found if match), "")


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
    same = [n for n in names if n.lower() == last.lower()]
    close = same or difflib.get_close_matches(name, names, n=1)
    if not close and len(name) > 2:  # "vit" for "vit_b_16"
        close = sorted((n for n in names if n.startswith(name)), key=len)
    return f" Did you mean '{close[0]}'?" if close else ""
