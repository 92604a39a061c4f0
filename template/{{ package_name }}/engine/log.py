"""What a run says: window means, console lines, `train.log`, `metrics.jsonl`."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from . import distributed
from .api import Mean

logger = logging.getLogger("run")


class Windows:
    """Means since the last log point and over the epoch, weighted by what they were taken over.

    Values stay on their device until `fetch`, which is one transfer; so a step never waits for
    the GPU. Sums are taken step by step in float64: how often values are fetched cannot change
    them.
    """

    _STACK = 4096  # scalars kept apart before they are joined on their device

    def __init__(self) -> None:
        self.sums: dict[str, dict[str, list[float]]] = {"train": {}, "train_epoch": {}}
        self._labels: list[tuple[int, str, float | None]] = []
        self._scalars: list[Tensor] = []
        self._stacked: list[Tensor] = []

    def add(self, step: int, values: Mapping[str, Tensor | Mean], count: int) -> None:
        """Values of one micro-batch of `count` samples at optimizer step `step`."""
        for key, value in values.items():
            if isinstance(value, Mean):
                if isinstance(value.n, Tensor):
                    self._labels.append((step, key, None))
                    self._scalars += [value.value.detach(), value.n.detach()]
                    continue
                count_, value = value.n, value.value
            else:
                count_ = count
            self._labels.append((step, key, float(count_)))
            self._scalars.append(value.detach())
        if len(self._scalars) >= self._STACK:
            self._join()

    def _join(self) -> None:
        if self._scalars:
            joined = torch.stack([s.reshape(()).double() for s in self._scalars])
            self._stacked.append(joined)
            self._scalars = []

    def fetch(self) -> int | None:
        """Bring what was added into the sums; the first step whose loss is not finite, or None."""
        if not self._labels and distributed.WORLD_SIZE == 1:
            return None
        self._join()
        numbers = iter(torch.cat(self._stacked).tolist() if self._stacked else [])
        labels, self._labels, self._stacked = self._labels, [], []
        values = [
            (step, key, next(numbers), next(numbers) if n is None else n) for step, key, n in labels
        ]
        # Sorting keeps the order of equal steps: sums are the same however often they are fetched.
        merged = sorted(itertools.chain(*distributed.from_all(values)), key=lambda value: value[0])
        bad = None
        for step, key, value, n in merged:
            if key == "loss" and bad is None and not math.isfinite(value):
                bad = step
            for sums in self.sums.values():
                total = sums.setdefault(key, [0.0, 0.0])
                total[0] += value * n
                total[1] += n
        return bad

    def means(self, window: str) -> dict[str, float]:
        """The means of "train" or "train_epoch" by tag; the window starts anew."""
        sums, self.sums[window] = self.sums[window], {}
        return {f"{window}/{key}": mean(total, n) for key, (total, n) in sums.items()}

    def state_dict(self) -> dict[str, Any]:
        return {window: {k: list(v) for k, v in s.items()} for window, s in self.sums.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums = {window: {k: list(v) for k, v in s.items()} for window, s in state.items()}


def mean(total: float, n: float) -> float:
    """total / n; not a number where nothing was counted."""
    return total / n if n else math.nan


class MetricsFile:
    """`metrics.jsonl`: one line per log point and per validation; each step once, also resumed."""

    def __init__(self, path: Path, done_steps: int, validate_again: bool) -> None:
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    row = json.loads(line)
                    to_come = row["step"] > done_steps
                except (ValueError, KeyError, TypeError):  # the line that a killed process wrote
                    continue
                if row["step"] == done_steps and validate_again:
                    to_come = any(key.startswith("val/") for key in row)
                if not to_come:
                    kept.append(line + "\n")
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.write_text("".join(kept), encoding="utf-8")
            os.replace(temporary, path)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the run

    def write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _Console(logging.Handler):
    """Lines on the terminal that do not tear a progress bar; colour only on a terminal."""

    _COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m"}

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
            colour = self._COLOURS.get(record.levelno) or getattr(record, "colour", "")
            text = f"{colour}{text}\x1b[0m" if colour else text
        from tqdm import tqdm

        try:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
        except (OSError, ValueError):  # nobody reads any more; the run goes on, and so does its log
            logger.removeHandler(self)
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())


def open_log(folder: Path, level: str) -> None:
    """Send the run's messages to the console and to `train.log`, warnings of libraries included.

    Of other processes than the first, only warnings and errors.
    """
    close_log()
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    console = _Console()
    console.setLevel(level.upper() if distributed.is_main() else logging.ERROR)
    file = logging.FileHandler(folder / "train.log", encoding="utf-8")
    file.setFormatter(
        logging.Formatter(f"%(asctime)s %(levelname)-7s rank {distributed.RANK}  %(message)s")
    )
    file.setLevel(logging.DEBUG if distributed.is_main() else logging.WARNING)
    logger.addHandler(console)
    logger.addHandler(file)
    warnings.showwarning = _log_warning


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    text = " ".join(str(message).split())
    logger.warning(f"{category.__name__}: {text} ({Path(filename).name}, line {lineno})")


_default_showwarning = warnings.showwarning


def close_log() -> None:
    warnings.showwarning = _default_showwarning
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def number(value: float) -> str:
    """Four significant digits, as wide as its neighbours in a column."""
    return f"{value:.2e}" if value and not 1e-3 <= abs(value) < 1e5 else f"{value:#.4g}".rstrip(".")


def columns(values: Mapping[str, float]) -> str:
    """ "loss 0.1234  acc 0.9811" with the part of each tag after the slash."""
    return "  ".join(f"{tag.split('/', 1)[1]} {number(v):<7}" for tag, v in values.items()).rstrip()


def duration(seconds: float) -> str:
    """h:mm:ss"""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
