"""Measure how fast batches of pictures are read."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from .common import Bars, Table, project

BATCH = 128


def endless(loader: DataLoader) -> Iterator[Any]:
    while True:
        yield from loader


def rows(
    title: str,
    note: str,
    contestants: dict[str, Iterator[Any]],
    batches: dict[str, int],
    rounds: int,
    base: str,
    more: tuple[str, dict[str, str]] | None = None,
) -> Table:
    """Measure the pictures per CPU second of each contestant, in turn. more: a column with its cells."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, reads in contestants.items():
            began = time.process_time()
            for _ in islice(reads, batches[name]):
                pass
            if turn:
                rates[name].append(batches[name] * BATCH / (time.process_time() - began))
    table = Table(title, ["what", "pictures per CPU second (middle half)", "ratio", *(more or ())[:1]], note=note)
    for name, values in rates.items():
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        ratios = statistics.median(a / b for a, b in zip(values, rates[base], strict=True))
        cells = [name, f"{middle:,.0f} ({low:,.0f}–{high:,.0f})", f"{ratios:.1f}×", *([more[1][name]] if more else [])]
        table.rows.append(tuple(cells))
    table.bars = Bars(title, "pictures per CPU second", rates)
    return table


def our_batches(*overrides: str) -> Iterator[Any]:
    """Return an endless iterator of batches, read as in the main process of the default project."""
    project()
    from digits.engine.launch import compose
    from digits.engine.setup import build_parts

    fixed = (f"batch_size={BATCH}", "epochs=100000", "workers=0", "device=cpu", "model=mlp", "log.level=warning")
    parts = build_parts(compose(*overrides, *fixed))
    return parts.train.read(0, parts.total_steps)
