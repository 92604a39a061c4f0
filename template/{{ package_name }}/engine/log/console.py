"""What a person sees: lines in columns, colours, and a progress bar that tears no line."""

import logging
import multiprocessing
import os
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from tqdm import tqdm

from ..text import printable, width

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
        """Return a message without characters that a terminal obeys, except line breaks."""
        return "\n".join(map(printable, super().format(record).split("\n")))

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
