"""How the jobs of a sweep ended: the table at its end."""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.schema import Config
from ..errors import FAILED, FINISHED, MISTAKE, STOPPED, UserError
from ..paths import ROOT, shown
from ..text import align
from .folder import all_runs, find_run


@dataclass
class Outcome:
    """How a job ended; a row of the table at a sweep's end."""

    overrides: list[str]
    number: int = 0
    folder_name: str | None = None
    config: Config | None = None
    code: int = FAILED

    def folder(self) -> Path | None:
        """The run that the job made or went on in; None where it came to none."""
        if self.config is None:
            return None
        if self.config.resume is not None:
            with contextlib.suppress(UserError):
                return find_run(self.config)
        mine = re.compile(rf"{re.escape(str(self.folder_name))}(-\d+)?")
        found = all_runs(self.config.name)
        return next((path for path in found if mine.fullmatch(path.name)), None)

    def manifest(self) -> dict[str, Any]:
        folder = self.folder()
        if folder is None:
            return {}
        values: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return values

    def result(self) -> dict[str, Any]:
        """`steps`, `best`, `last` and more of a finished run; else empty."""
        return self.manifest().get("result") or {}

    def row(self) -> dict[str, Any]:
        """The job as a row of `results.csv`."""
        folder, result = self.folder(), self.result()
        ended = {FINISHED: "finished", MISTAKE: "mistake", STOPPED: "stopped"}
        return {
            "job": self.number,
            "overrides": " ".join(self.overrides),
            "status": self.manifest().get("status") or ended.get(self.code, "failed"),
            "code": self.code,
            "steps": result.get("steps"),
            "monitor": self.config.monitor if self.config else None,
            "best": result.get("best"),
            "last": result.get("last"),
            "run": None if folder is None else shown(folder),
        }


def report(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Print how the jobs ended and write the same, with full numbers, to `folder`/results.csv.

    Nothing where no job came to a run: a dry run, a range test, a mistake in every job.
    """
    rows = [outcome.row() for outcome in outcomes]
    if not any(row["run"] for row in rows):
        return
    with contextlib.suppress(OSError):  # the runs hold all of it, too
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "results.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    shared = set.intersection(*(set(outcome.overrides) for outcome in outcomes))
    columns = ("job", "overrides", "status", "steps", "best", "last", "run")
    lines: list[Sequence[str]] = [columns]
    for outcome, row in zip(outcomes, rows, strict=True):
        own = [o for o in outcome.overrides if o not in shared or len(outcomes) == 1]
        status = row["status"] + (f" ({row['code']})" if row["code"] else "")
        told = {**row, "overrides": _LONG.sub(_short, " ".join(own)), "status": status}
        lines.append([_cell(told[column]) for column in columns])
    print(*align(lines, left=len(columns)), sep="\n")
    print(_best(outcomes, rows) + f"Table: {shown(ROOT / folder)}/results.csv", flush=True)


_LONG = re.compile(r"(?<==)-?\d+\.\d{5,}(e-?\d+)?")


def _short(number: re.Match[str]) -> str:
    """A searched value as a person reads it; the file has all digits."""
    return f"{float(number[0]):.4g}"


def _best(outcomes: Sequence[Outcome], rows: Sequence[dict[str, Any]]) -> str:
    """A sentence on the best job, where all were judged by the same value."""
    judged = [row for row in rows if row["best"] is not None]
    by = {(o.config.monitor, o.config.monitor_mode) for o in outcomes if o.config is not None}
    if not judged or len(by) != 1:
        return ""
    monitor, mode = by.pop()
    best = (max if mode == "max" else min)(judged, key=lambda row: row["best"])
    return f"Best: job {best['job']} with {monitor} {best['best']:.4g}. "


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
