"""How a run is stopped: SIGTERM, SIGINT (Ctrl-C), SIGUSR1 or SIGUSR2.

The first signal asks the loop to finish its step, save and exit with 75. A second signal n ends the
process at once with 128+n. This module is imported first, before Hydra and torch.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)

pending: int | None = None  # the number of the signal that asked the run to stop

_owner = os.getpid()


def handle(number: int, frame: FrameType | None) -> None:
    """Note the request to stop. End at once if it is the second one."""
    global pending
    is_forked = os.getpid() != _owner  # it has the handler, but nothing to save
    if is_forked or pending is not None:
        os._exit(128 + number)
    pending = number


def install() -> None:
    """Take over the stop signals. train.py calls it before its other imports."""
    global pending, _owner
    pending, _owner = None, os.getpid()
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # run/jobs.py has blocked it


def install_once() -> None:
    """Like `install`, but keep a request to stop that came since then."""
    if _owner != os.getpid() or signal.getsignal(signal.SIGTERM) is not handle:
        install()


def end_at_once() -> None:
    """Let each signal end the process at once: nothing can be lost any more."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def ignore() -> None:
    """Ignore signals at the end of the command, so that a late one cannot change the exit code."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold signals back during the block. Processes that it starts wait until `in_worker`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    of_children = signal.getsignal(signal.SIGCHLD) or signal.SIG_DFL
    try:
        yield
    finally:
        # torch's own handler raises at any line when a loader worker dies. Without the handler,
        # the error comes from the line that waits for a batch.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, of_children)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_worker(worker: int) -> None:
    """Keep a loader worker, whose batches a step needs, until two minutes after a SIGTERM."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(120))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def requested() -> str | None:
    """Return the name of the signal that asked the run to stop, or None."""
    return None if pending is None else signal.Signals(pending).name
