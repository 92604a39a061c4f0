"""Stop requests. The first signal asks the loop to finish its step, save and exit with 75;
a second one ends the process at once. Imported first: before Hydra, before torch."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

_requested: int | None = None

_owner = os.getpid()


def _handle(number: int, frame: FrameType | None) -> None:
    global _requested
    if os.getpid() != _owner:  # a forked process inherits the handler but not the duty
        os._exit(128 + number)
    if _requested is not None:
        os._exit(128 + number)
    _requested = number


def install() -> None:
    """Take over the stop signals; called first thing in train.py."""
    global _requested, _owner
    _requested, _owner = None, os.getpid()
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, _handle)


def install_once() -> None:
    """The same, keeping a request that has come since `install`."""
    if _owner != os.getpid() or signal.getsignal(signal.SIGTERM) is not _handle:
        install()


def restore() -> None:
    """Where nothing can be lost: every signal ends the process at once, in whatever it waits."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def ignore() -> None:
    """When all is done: the interpreter, while it ends, would restore the default handlers."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


_GRACE = 120  # seconds


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Signals wait until the block is over; processes started in it wait for `in_worker`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    of_children = signal.getsignal(signal.SIGCHLD) or signal.SIG_DFL
    try:
        yield
    finally:
        # torch's own handler raises at whatever line this process is when a worker dies; without
        # it, that is noticed where a batch is waited for.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, of_children)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_worker() -> None:
    """What a loader worker does: leave signals to the main process, which needs its batches to
    finish the step, and end on SIGTERM only after some time."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def requested() -> str | None:
    """The name of the signal that asked the run to stop, or None."""
    return None if _requested is None else signal.Signals(_requested).name
