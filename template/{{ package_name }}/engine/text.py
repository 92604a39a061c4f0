"""Text that people read: messages, numbers, aligned tables."""

import logging
import re
import sys
import unicodedata
from collections.abc import Sequence
from math import floor, isfinite, log10

logger = logging.getLogger("run")


def printable(text: str) -> str:
    """Return a text without characters that a terminal obeys: they become escapes, such as \\x1b."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def say(sentence: str) -> None:
    """Print to stderr, without unprintable characters. Cut words of more than 400 characters."""
    sentence = re.sub(r"\S{400,}", lambda word: f"{word[0][:100]}…", sentence)
    # Lines of a table begin with two spaces.
    print(printable(sentence).replace("\\n  ", "\n  "), file=sys.stderr, flush=True)


def tell(*lines: str) -> None:
    """Print lines of a result to stdout, without unprintable characters."""
    print(*map(printable, lines), sep="\n", flush=True)


DIGITS = 4  # significant digits that people read; files hold all digits
NUMBER_WIDTH = 8  # columns of the widest `number`: every value of a run fits into one column


def number(value: float) -> str:
    """Return a number with DIGITS significant digits, or fewer if NUMBER_WIDTH has no room."""
    if not isfinite(value):
        return str(value)
    size = floor(log10(abs(value))) if value else 0
    if -3 <= size < DIGITS + 2:
        texts = [f"{value:.{max(0, shown - size)}f}" for shown in reversed(range(DIGITS))]
    else:
        texts = [f"{value:.{shown}e}" for shown in reversed(range(DIGITS))]
    return next((text for text in texts if len(text) <= NUMBER_WIDTH), texts[-1])


def spread(values: Sequence[float], digits: int = DIGITS) -> str:
    """Return the mean ± the standard deviation, the only value, or ""."""
    from statistics import fmean, stdev  # here: few commands need it

    if not values:
        return ""
    mean = f"{fmean(values):.{digits}g}"
    return f"{mean} ± {stdev(values):.2g}" if len(values) > 1 else mean


def typed(value: object) -> str:
    """Return a config value as on the command line."""
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def quoted(value: object) -> str:
    """Return a text in quotes, as Hydra reads it in an override."""
    # To Hydra, only backslashes before a quote are escapes.
    escaped = re.sub(r"(\\+)(?='|\Z)", r"\1\1", str(value)).replace("'", r"\'")
    return f"'{escaped}'"


def duration(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def width(text: str) -> int:
    """Return the columns on a terminal. Chinese, Japanese and Korean letters take two each."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def align(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Return lines with columns of equal width, the first `left` of them aligned to the left."""
    columns = []
    for place, column in enumerate(zip(*rows, strict=True)):
        cells = list(map(printable, column))
        widest = max(map(len, cells))
        columns.append([c.ljust(widest) if place < left else c.rjust(widest) for c in cells])
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]
