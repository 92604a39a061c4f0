"""What a person sees: lines whose columns stay in place, colour, and a bar that tears none of them."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TextIO

from tqdm import tqdm

from ..text import width

Cell = tuple[str, str]
"""A label and its value, which is padded to the width of its column."""

_DIM, _GREEN, _YELLOW, _RED, _OFF = "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"

_SHADES = {logging.DEBUG: _DIM, logging.WARNING: _YELLOW, logging.ERROR: _RED}


def is_terminal(stream: TextIO) -> bool:
    """Whether a person watches: no pipe, no file, no CI."""
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return stream.isatty() and not in_ci and os.environ.get("TERM") != "dumb"


class Columns:
    """Keeps the places of labelled values from line to line: no column ever gets narrower, and one
    without a value is left blank."""

    def __init__(self, least: int = 0) -> None:
        self.least = least
        self._widths: dict[str, int] = {}

    def align(self, values: Mapping[str, str]) -> list[Cell]:
        for label, value in values.items():
            self._widths[label] = max(self._widths.get(label, self.least), width(value))
        return [
            (label, values[label] + " " * (size - width(values[label])))
            if label in values
            else (" " * width(label), " " * size)
            for label, size in self._widths.items()
        ]


@dataclass(frozen=True)
class Line:
    """A log point or a validation."""

    place: str
    cells: list[Cell]
    times: list[Cell]
    """What a narrow terminal leaves out, from the right."""
    best: str = ""

    def plain(self) -> str:
        cells = [f"{label} {value}" for label, value in (*self.cells, *self.times)]
        return "  ".join(filter(None, [self.place, *cells, self.best])).rstrip()

    def fitted(self, columns: int, colour: bool) -> str:
        """For a terminal: without the times that do not fit; the rest wraps between values."""
        times = list(self.times)
        while times and self._width(times) > columns:
            times.pop()
        lines, used = [self.place], width(self.place)
        for label, value in (*self.cells, *times):
            size = 3 + width(label) + width(value.rstrip())
            if used + size > columns and used > width(self.place):
                lines.append(" " * width(self.place))
                used = width(self.place)
            lines[-1] += f"  {_DIM}{label}{_OFF} {value}" if colour else f"  {label} {value}"
            used += 3 + width(label) + width(value)
        if self.best:
            best = f"{_GREEN}{self.best}{_OFF}" if colour else self.best
            if used + 2 + width(self.best) > columns:
                lines.append(" " * width(self.place))
            lines[-1] += f"  {best}"
        return "\n".join(line.rstrip() for line in lines)

    def _width(self, times: Iterable[Cell]) -> int:
        cells = [*self.cells, *times]
        padding = len(cells[-1][1]) - len(cells[-1][1].rstrip())
        return width(self.place) + sum(3 + width(a) + width(b) for a, b in cells) - padding


class Console(logging.Handler):
    """Writes messages, and the `line` of those that have one, to the terminal or whatever stands
    in its place."""

    def __init__(self) -> None:
        super().__init__()
        self._owner = os.getpid()
        self._known: tuple[TextIO, bool] | None = None
        """The stream that was last written to, and whether a person watches it."""

    def _is_watched(self) -> bool:
        if self._known is None or self._known[0] is not sys.stdout:
            self._known = (sys.stdout, is_terminal(sys.stdout))
        return self._known[1]

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "file_only", False):
            return
        try:
            text = self._text(record)
            encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
            text = text.encode(encoding, "replace").decode(encoding)
            if not self._is_watched():
                sys.stdout.write(f"{text}\n")
            elif os.getpid() == self._owner:
                tqdm.write(text, file=sys.stdout)
            else:  # a loader worker, which must not hold the bar's lock: it may be killed
                sys.stdout.write("\r" + " " * (_columns() - 1) + f"\r{text}\n")
            sys.stdout.flush()
        except (OSError, ValueError):  # nobody reads any more; the run goes on, and so does its log
            self.setLevel(logging.CRITICAL + 1)
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())

    def _text(self, record: logging.LogRecord) -> str:
        line: Line | None = getattr(record, "line", None)
        if not self._is_watched():
            return self.format(record)
        colour = not os.environ.get("NO_COLOR")
        if line is not None:
            return line.fitted(_columns(), colour)
        text = self.format(record)
        shade = _SHADES.get(record.levelno)
        return f"{shade}{text}{_OFF}" if colour and shade else text


def _columns() -> int:
    return shutil.get_terminal_size().columns


def progress_bar(total: int, done: int, shown: bool) -> tqdm[None]:
    """Of steps. Its line is shorter than the terminal, so that an echoed ^C does not wrap it."""
    tqdm.monitor_interval = 0  # no second thread beside the one that forks loader workers
    return tqdm(
        total=total,
        initial=done,
        miniters=1,
        leave=False,
        bar_format="{percentage:3.0f}% {bar:30} {n_fmt}/{total_fmt} steps  {rate_noinv_fmt}  {desc}",
        unit=" steps",
        disable=not (shown and is_terminal(sys.stdout) and is_terminal(sys.stderr)),
    )
