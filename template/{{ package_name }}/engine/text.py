"""Text that people read: messages, numbers, aligned tables."""

from __future__ import annotations

import logging
import sys
import unicodedata
from collections.abc import Sequence
from math import floor, isfinite, log10

logger = logging.getLogger("run")


def say(sentence: str) -> None:
    """Tell the person at the terminal; escapes what would not print, but for the lines of a table,
    which begin with two spaces."""
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in sentence)
    print(escaped.replace("\\n  ", "\n  "), file=sys.stderr, flush=True)


def number(value: float, digits: int = 4) -> str:
    """At most `digits` significant ones, fewer where `number_width` leaves no room for them."""
    if not isfinite(value):
        return str(value)
    size = floor(log10(abs(value))) if value else 0
    text = ""
    for shown in range(digits - 1, -1, -1):
        if -3 <= size < digits + 2:
            text = f"{value:.{max(0, shown - size)}f}"
        else:
            text = f"{value:.{shown}e}"
        if len(text) <= number_width(digits):
            break
    return text


def number_width(digits: int) -> int:
    """The widest that any `number` can be: every value of a run fits into one column."""
    return max(8, digits + 4)


def duration(seconds: float) -> str:
    """h:mm:ss"""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def width(text: str) -> int:
    """Columns on a terminal: Chinese, Japanese and Korean letters take two."""
    if text.isascii():
        return len(text)
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def align(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Columns as wide as their widest cell; the first `left` to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
