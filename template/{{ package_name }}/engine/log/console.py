"""What a person sees, and `train.log`: messages of a run, warnings of libraries, a progress bar."""

import contextlib
import logging
import mmap
import multiprocessing
import os
import re
import shutil
import sys
import threading
import warnings
import zlib
from collections.abc import Sequence
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from ..machine import distributed
from ..text import logger, printable, width

Cell = tuple[str, str]
"""A label and its value, padded to the width of its column."""

_DIM, _GREEN, _YELLOW, _RED, _OFF = "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"

_SHADES = {logging.DEBUG: _DIM, logging.WARNING: _YELLOW, logging.ERROR: _RED}


def is_terminal(stream: TextIO) -> bool:
    """True if a person watches: no pipe, no file, no CI."""
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return stream.isatty() and not in_ci and os.environ.get("TERM") != "dumb"


def line(
    place: str, cells: Sequence[Cell], times: Sequence[Cell], best: str | None, columns: int
) -> str:
    """A log point or a validation, for a terminal of so many columns (0: for a file).

    The terminal leaves out the last `times` if they do not fit. `best` names a new best value.
    """
    shown = [f"{label} {value}" for label, value in (*cells, *times)]
    if columns and times and width("  ".join([place, *shown]).rstrip()) > columns:
        return line(place, cells, times[:-1], best, columns)
    has_colour = columns and not os.environ.get("NO_COLOR")
    dim, green, off = (_DIM, _GREEN, _OFF) if has_colour else ("", "", "")
    shown = [f"{dim}{label}{off} {value}" for label, value in (*cells, *times)]
    shown += [f"{green}new best {best}{off}"] if best else []
    return "  ".join([place, *shown]).rstrip()


class Console(logging.Handler):
    """Writes messages to stdout. A message may have a `line`, a function of the columns there."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "file_only", False):
            return
        try:
            is_watched = is_terminal(sys.stdout)
            text = self._coloured(record) if is_watched else self.format(record)
            encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
            text = text.encode(encoding, "replace").decode(encoding)
            if is_watched and multiprocessing.parent_process() is None:
                tqdm.write(text, file=sys.stdout)
            else:  # a loader worker may be killed, so it must not take the bar's lock
                sys.stdout.write(f"\r\x1b[K{text}\n" if is_watched else f"{text}\n")
            sys.stdout.flush()
        except (OSError, ValueError):  # the reader has gone; the run and its log go on
            self.setLevel(logging.CRITICAL + 1)
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())

    def format(self, record: logging.LogRecord) -> str:
        """Return a message without characters that a terminal obeys, except line breaks. A hash of
        weights is cut to its first 16 characters."""
        text = re.sub(r"(sha256 \w{16})\w{48}\b", r"\1…", super().format(record))
        return "\n".join(map(printable, text.split("\n")))

    def _coloured(self, record: logging.LogRecord) -> str:
        if hasattr(record, "line"):
            return str(record.line(shutil.get_terminal_size().columns))
        text, shade = self.format(record), _SHADES.get(record.levelno)
        return f"{shade}{text}{_OFF}" if shade and not os.environ.get("NO_COLOR") else text


def progress_bar(total: int, done: int, shown: bool) -> "tqdm[None]":
    """A bar of steps. It is shorter than the terminal, so that an echoed ^C does not wrap it."""
    tqdm.monitor_interval = 0  # no second thread in the process that forks loader workers
    return tqdm(
        total=total,
        initial=done,
        miniters=1,
        leave=False,
        bar_format="{percentage:3.0f}% {bar:30} {n_fmt}/{total_fmt} steps  {rate_noinv_fmt}  {desc}",
        unit=" steps",
        disable=not (shown and is_terminal(sys.stdout) and is_terminal(sys.stderr)),
    )


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
                own.addFilter(_is_not_ours)


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


def _is_not_ours(record: logging.LogRecord) -> bool:
    """Whether torch writes this record itself. `_library` sends the others."""
    return record.levelno < logging.WARNING or not logger.handlers


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
