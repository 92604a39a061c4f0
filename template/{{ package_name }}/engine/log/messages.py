"""Where messages of a run and warnings of libraries go: the console and `train.log`."""

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

_EARLY = 1000
"""So many messages are kept until there is a `train.log`."""


class _File(logging.FileHandler):
    """`train.log`. An error while writing, such as a full disk, ends the run."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logger.removeHandler(self)  # raise once: the run's end logs messages, too
        with contextlib.suppress(OSError):  # closing tries to write again
            self.close()
        raise error


def open_log(level: str) -> None:
    """Send messages and the warnings of libraries to the console. Other ranks send only errors."""
    close_log()
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    console = Console()
    console.setLevel(level.upper() if distributed.is_main() else logging.ERROR)
    early = MemoryHandler(_EARLY, flushLevel=logging.CRITICAL + 1)
    early.setLevel(logging.DEBUG if distributed.is_main() else logging.WARNING)
    logger.addHandler(console)
    logger.addHandler(early)
    _listen()


def open_file(folder: Path) -> None:
    """Send messages to `train.log`, too, also the earlier ones. Other ranks send no infos."""
    file = _File(folder / "train.log", encoding="utf-8")
    file.setFormatter(
        logging.Formatter(f"%(asctime)s %(levelname)-7s rank {distributed.RANK}  %(message)s")
    )
    for early in [h for h in logger.handlers if isinstance(h, MemoryHandler)]:
        file.setLevel(early.level)
        early.setTarget(file)
        early.close()
        logger.removeHandler(early)
    logger.addHandler(file)


def close_log() -> None:
    warnings.showwarning = _default_showwarning
    threading.excepthook = threading.__excepthook__
    for other in _sources():
        other.removeHandler(_library)
        for own in other.handlers:
            own.removeFilter(_is_info)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


# ---------------------------------------------------------------- warnings of libraries


class _Library(logging.Handler):
    """Logs the errors of other loggers, and their warnings once."""

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.name}: {' '.join(record.getMessage().split())}"
        if record.levelno > logging.WARNING or _is_new(text):
            logger.log(record.levelno, text, exc_info=record.exc_info)


_library = _Library(logging.WARNING)

_default_showwarning = warnings.showwarning

_said = mmap.mmap(-1, 1 << 16)
"""One byte per warning, by hash. Loader workers share it, so they do not repeat a warning."""


def _is_new(text: str, where: str = "") -> bool:
    """True if no warning was the same except for its numbers, and remember this one."""
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
        for own in other.handlers:  # torch's loggers write warnings to the terminal, too
            if getattr(own, "stream", None) in (sys.stdout, sys.stderr):
                own.addFilter(_is_info)


def _is_info(record: logging.LogRecord) -> bool:
    return record.levelno < logging.WARNING


def _sources() -> list[logging.Logger]:
    """The root logger and all loggers that do not pass their messages on to it."""
    known = [x for x in logging.root.manager.loggerDict.values() if isinstance(x, logging.Logger)]
    return [logging.root, *(other for other in known if not other.propagate and other != logger)]


def _log_thread(ended: threading.ExceptHookArgs) -> None:
    """Warn of a thread that failed. Code that waits for the thread gets the error itself."""
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
