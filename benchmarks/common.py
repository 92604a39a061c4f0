"""How everything is measured: interleaved in one process, as medians and ratios."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Table:
    """A heading, rows of text below column names, and what has to be said of it."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    note: str = ""

    def markdown(self) -> str:
        head = [f"### {self.title}", "", _row(self.columns), _row(["---"] * len(self.columns))]
        text = "\n".join([*head, *map(_row, self.rows)])
        return f"{text}\n\n{self.note}" if self.note else text


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def render() -> Path:
    """The default project of the working tree, as package `digits`, in a new temporary folder."""
    import copier

    folder = Path(tempfile.mkdtemp()) / "digits"
    template = Path(tempfile.mkdtemp())
    names = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, text=True)
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (template / name).parent.mkdir(parents=True, exist_ok=True)
            (template / name).write_bytes((ROOT / name).read_bytes())
    answers = {"project_name": "Digits", "package_name": "digits"}
    copier.run_copy(str(template), folder, data=answers, defaults=True, quiet=True)
    sys.path.insert(0, str(folder))
    return folder


def interleaved(works: Sequence[Callable[[], float | None]], repeats: int) -> list[list[float]]:
    """Seconds of each work, in turn (A B A B …), `repeats` times after one round to warm up.

    A work may return its own seconds, where only a part of it counts.
    """
    seconds: list[list[float]] = [[] for _ in works]
    for turn in range(repeats + 1):
        for place, work in enumerate(works):
            began = time.perf_counter()
            own = work()
            if turn:
                seconds[place].append(time.perf_counter() - began if own is None else own)
    return seconds


def per_call(work: Callable[[], object], calls: int) -> Callable[[], float]:
    """A work for `interleaved`: the seconds of one call, averaged over `calls`."""

    def timed() -> float:
        began = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - began) / calls

    return timed


def shown(seconds: Sequence[float]) -> str:
    """The median with its unit, and how far the middle half spreads."""
    middle = statistics.median(seconds)
    unit, factor = ("µs", 1e6) if middle < 1e-3 else ("ms", 1e3) if middle < 1 else ("s", 1)
    low, _, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else (middle,) * 3
    return f"{middle * factor:.3g} {unit} ({low * factor:.3g}–{high * factor:.3g})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median of ours as a multiple of the median of theirs."""
    return f"{statistics.median(ours) / statistics.median(theirs):.2f}×"


def machine() -> str:
    """Machine, versions and date, in a line."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = f"{len(names)} × {names[0]}" if names else cpu
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    versions = f"Python {platform.python_version()}, torch {importlib.metadata.version('torch')}"
    return f"{cpu}{gpu}; {versions}, {torch.get_num_threads()} threads; {date.today().isoformat()}"
