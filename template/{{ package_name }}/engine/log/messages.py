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
from typing import Any

from ..machine import distributed
from ..text import logger
from .console import Console


class _File(logging.FileHandler):
    """`train.log`. An error while writing, such as a full disk, ends the run."""

    def handleError(self, record: logging.LogRecord) -> None:
        logger.removeHandler(self)  # raise once: the run's end logs messages, too
        with contextlib.suppress(OSError):  # closing tries to write again
            self.close()
        raise


class _Library(logging.Handler):
    """Logs the errors of other loggers, and their warnings once. Loader workers share `said`."""

    said = mmap.mmap(-1, 1 << 16)  # one byte per warning, by hash

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        if record.name != "py.warnings":
            text = f"{record.name}: {text}"
        place = zlib.crc32(re.sub(r"0x\w+|[\d.]+", "0", text).encode()) % len(self.said)
        if record.levelno > logging.WARNING or not self.said[place]:
            logger.log(record.levelno, text, exc_info=record.exc_info)
        self.said[place] = 1


_library = _Library(logging.WARNING)
_showwarning = warnings.showwarning


def open_log(level: str) -> None:
    """Send messages and the warnings of libraries to the console. Other ranks send only errors."""
    close_log()
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    console = Console()
    console.setLevel(level.upper() if distributed.is_main() else logging.ERROR)
    early = MemoryHandler(capacity=1000, flushLevel=logging.CRITICAL + 1)  # until `open_file`
    early.setLevel(logging.DEBUG if distributed.is_main() else logging.WARNING)
    logger.addHandler(console)
    logger.addHandler(early)
    _library.said[:] = bytes(len(_library.said))
    warnings.showwarning = _log_warning  # type: ignore[assignment]
    threading.excepthook = _log_thread
    for other in _others():
        other.addHandler(_library)
        for own in other.handlers:  # torch's loggers write warnings to the terminal, too
            if getattr(own, "stream", None) in (sys.stdout, sys.stderr):
                own.addFilter(lambda x: x.levelno < logging.WARNING or not logger.handlers)


def open_file(folder: Path) -> None:
    """Send messages to `train.log`, too, also the earlier ones. Other ranks send no infos."""
    file = _File(folder / "train.log", encoding="utf-8", errors="backslashreplace")
    shape = f"%(asctime)s %(levelname)-7s rank {distributed.RANK}  %(message)s"
    file.setFormatter(logging.Formatter(shape))
    early = next(handler for handler in logger.handlers if isinstance(handler, MemoryHandler))
    file.setLevel(early.level)
    early.setTarget(file)
    early.close()
    logger.removeHandler(early)
    logger.addHandler(file)


def close_log() -> None:
    """Send messages nowhere. Raises OSError if the last lines of `train.log` are not written."""
    warnings.showwarning = _showwarning
    threading.excepthook = threading.__excepthook__
    for other in _others():
        other.removeHandler(_library)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def _others() -> list[logging.Logger]:
    """The root logger and all loggers that do not pass their messages on to it."""
    known = [x for x in logging.root.manager.loggerDict.values() if isinstance(x, logging.Logger)]
    return [logging.root, *(other for other in known if not other.propagate and other != logger)]


def _log_warning(message: Any, kind: type[Warning], file: str, number: int, *_: object) -> None:
    text = f"{kind.__name__}: {message} ({Path(file).name}, line {number})"
    logging.getLogger("py.warnings").warning(text)


def _log_thread(ended: threading.ExceptHookArgs) -> None:
    """Log the error of a logger's thread in one line. The call that waits for it raises it."""
    with contextlib.suppress(OSError):
        logger.warning(f"A thread ended with {ended.exc_type.__name__}: {ended.exc_value}")
