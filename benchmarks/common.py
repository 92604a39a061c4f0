"""How everything is measured: interleaved in one process, as medians and ratios."""

from __future__ import annotations

import atexit
import importlib.metadata
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
THREADS = int(os.environ.get("OMP_NUM_THREADS") or 1)
"""The number of threads of each measured process."""


@dataclass
class Bars:
    """A bar plot: a bar is the median of an entry's values, a line their middle half."""

    title: str
    axis: str
    values: Mapping[str, Sequence[float]]

    def draw(self, path: Path) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 0.8 + 0.35 * len(self.values)), layout="constrained")
        axes = figure.subplots()
        middles = [statistics.median(values) for values in self.values.values()]
        for place, (label, values) in enumerate(self.values.items()):
            low, middle, high = _quartiles(values)
            colour = "tab:orange" if label.startswith("ours") else "tab:blue"
            axes.barh(place, middle, color=colour, xerr=[[middle - low], [high - middle]], ecolor="grey")
            axes.annotate(f" {middle:.3g}", (max(middle, high), place), va="center", fontsize=8)
        axes.set_yticks(range(len(self.values)), list(self.values), fontsize=8)
        axes.set_xlim(0, 1.12 * max(middles))
        axes.invert_yaxis()
        axes.set_xlabel(self.axis)
        axes.set_title(self.title, fontsize=10)
        figure.savefig(path, dpi=110)


@dataclass
class Table:
    """A heading, column names, rows of text and a note."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    note: str = ""
    bars: Bars | None = None

    def markdown(self) -> str:
        if not self.rows:
            return f"### {self.title}\n\n{self.note}"
        head = [f"### {self.title}", "", _row(self.columns), _row(["---"] * len(self.columns))]
        text = "\n".join([*head, *map(_row, self.rows)])
        return f"{text}\n\n{self.note}" if self.note else text


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def temporary() -> Path:
    """Return a new folder. It is deleted when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="ostinato-benchmarks-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _template() -> Path:
    """Copy the working tree into a folder that is no git repository, so that Copier renders it as it is."""
    folder = temporary()
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def tracked() -> list[str]:
    """Return the files of the working tree, without those that git ignores."""
    names = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, text=True)
    return [name for name in names.split("\0") if name and (ROOT / name).is_file()]


def render(folder: Path, **answers: str) -> Path:
    """Render a project of the working tree into `folder`, as package `digits`."""
    import copier

    answers = {"project_name": "Digits", "package_name": "digits", **answers}
    copier.run_copy(str(_template()), folder, data=answers, defaults=True, quiet=True)
    return folder


@cache
def project() -> Path:
    """Return the default project of the working tree. It is rendered, unless RENDERED names a folder."""
    given = os.environ.get("RENDERED")
    folder = Path(given) if given else render(temporary() / "digits")
    sys.path.insert(0, str(folder))
    return folder


class Cost(NamedTuple):
    """The seconds that a process took, and the most bytes that it held."""

    wall: float
    cpu: float
    peak: float


def measure(
    arguments: Sequence[str], code: int = 0, cwd: Path | None = None, python: str = sys.executable
) -> tuple[Cost, str]:
    """Run Python in the rendered project, or in `cwd`. Return its cost and what it printed.

    Raises `RuntimeError` if the exit code is not `code`.
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    variables["OMP_NUM_THREADS"] = str(THREADS)
    variables |= {} if cwd else {"PYTHONPATH": str(project())}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        process = subprocess.Popen([python, *arguments], cwd=cwd or project(), env=variables, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        cost = Cost(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, peak)
        process.returncode = os.waitstatus_to_exitcode(status)
        for file in (out, err):
            file.seek(0)
        if process.returncode != code:
            shown = " ".join(arguments)[:200]
            raise RuntimeError(f"python {shown} ended with {process.returncode}, not {code}: {err.read()[-2000:]}")
        return cost, out.read()


def interleaved(works: Sequence[Callable[[], float | None]], repeats: int) -> list[list[float]]:
    """Return the seconds of each work, measured in turn (A B A B …), `repeats` times after a warm-up round.

    A work may return its own seconds if only a part of it counts.
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
    """Return a work for `interleaved` that returns the mean seconds of a call, over `calls` calls."""

    def timed() -> float:
        began = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - began) / calls

    return timed


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def shown(seconds: Sequence[float]) -> str:
    """Return the median with its unit, and the range of the middle half."""
    middle = statistics.median(seconds)
    unit, factor = ("µs", 1e6) if middle < 1e-3 else ("ms", 1e3) if middle < 1 else ("s", 1)
    low, _, high = _quartiles(seconds)
    return f"{middle * factor:.3g} {unit} ({low * factor:.3g}–{high * factor:.3g})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return ours as a multiple of theirs: the median over turns, because a slow minute slows both.

    If the two have different lengths, return the ratio of their medians.
    """
    if len(ours) == len(theirs):
        return f"{statistics.median(a / b for a, b in zip(ours, theirs, strict=True)):.2f}×"
    return f"{statistics.median(ours) / statistics.median(theirs):.2f}×"


def machine() -> str:
    """Return machine, versions and date in one line."""
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
    threads = torch.get_num_threads()
    return f"{cpu}{gpu}; {versions}, {threads} thread{'s' * (threads != 1)}; {date.today().isoformat()}"
