"""What a run says: console lines, `train.log`, `metrics.jsonl`."""

from __future__ import annotations

import contextlib
import logging
import mmap
import re
import sys
import threading
import warnings
import zlib
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TextIO

from ..machine import distributed
from ..text import logger
from .console import Console


class _File(logging.FileHandler):
    """`train.log`. Where it cannot be written, as on a full disk, the run ends: once."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logger.removeHandler(self)
        with contextlib.suppress(OSError):  # it tries to write the rest again
            self.close()
        raise error


def open_log(level: str) -> None:
    """Send the run's messages to the console, and what libraries warn of.

    Of other processes than the first, only errors.
    """
    close_log()
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    console = Console()
    console.setLevel(level.upper() if distributed.is_main() else logging.ERROR)
    logger.addHandler(console)
    logger.addHandler(MemoryHandler(_EARLY, flushLevel=logging.CRITICAL + 1))
    _listen()


def open_file(folder: Path) -> None:
    """Send messages to `train.log`, too, with those from before there was a folder.

    Of other processes than the first, only warnings and errors.
    """
    file = _File(folder / "train.log", encoding="utf-8")
    file.setFormatter(
        logging.Formatter(f"%(asctime)s %(levelname)-7s rank {distributed.RANK}  %(message)s")
    )
    file.setLevel(logging.DEBUG if distributed.is_main() else logging.WARNING)
    for early in [h for h in logger.handlers if isinstance(h, MemoryHandler)]:
        for record in early.buffer:
            if record.levelno >= file.level:
                file.handle(record)
        logger.removeHandler(early)
    logger.addHandler(file)


def close_log() -> None:
    _stop_listening()
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


_EARLY = 1000
"""Messages that are kept until there is a file."""

# ---------------------------------------------------------------- what libraries say


class _Library(logging.Handler):
    """Passes warnings and errors of other loggers on to the run's, each warning once."""

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.name}: {' '.join(record.getMessage().split())}"
        if record.levelno > logging.WARNING or _is_new(text):
            logger.log(record.levelno, text, exc_info=record.exc_info)


_library = _Library(logging.WARNING)

_default_showwarning = warnings.showwarning

_said = mmap.mmap(-1, 1 << 16)
"""A byte per warning, by hash: shared with loader workers, which would all say the same."""


def _is_new(text: str, where: str = "") -> bool:
    """Whether this was not said yet, numbers aside: a step's warning may count the steps."""
    words = re.sub(r"0x\w+|[\d.]+", "0", text) + where
    place = zlib.crc32(words.encode()) % len(_said)
    said, _said[place] = _said[place], 1
    return not said


def _listen() -> None:
    _said[:] = bytes(len(_said))
    warnings.showwarning = _log_warning
    threading.excepthook = _log_thread
    for other in _sources():
        other.addHandler(_library)
        for own in other.handlers:  # torch's loggers write to the terminal themselves
            if getattr(own, "stream", None) in (sys.stdout, sys.stderr):
                own.addFilter(_is_not_ours)


def _stop_listening() -> None:
    warnings.showwarning = _default_showwarning
    threading.excepthook = threading.__excepthook__
    for other in _sources():
        other.removeHandler(_library)
        for own in other.handlers:
            own.removeFilter(_is_not_ours)


def _is_not_ours(record: logging.LogRecord) -> bool:
    return record.levelno < logging.WARNING


def _sources() -> list[logging.Logger]:
    """The root of all loggers, and those that do not pass on what they get."""
    known = list(logging.root.manager.loggerDict.values())
    loggers = [
        other for other in known if isinstance(other, logging.Logger) and other is not logger
    ]
    return [logging.root, *(other for other in loggers if not other.propagate)]


def _log_thread(ended: threading.ExceptHookArgs) -> None:
    """Such as a logger's: who waits for it gets the error itself."""
    name = ended.thread.name if ended.thread is not None else "a thread"
    with contextlib.suppress(OSError):
        logger.warning(f"{name} ended with {ended.exc_type.__name__}: {ended.exc_value}")


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    text = f"{category.__name__}: {' '.join(str(message).split())}"
    if _is_new(text, f"{filename} {lineno}"):
        logger.warning(f"{text} ({Path(filename).name}, line {lineno})")
