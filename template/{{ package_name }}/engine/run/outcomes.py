"""How the jobs of a sweep ended: the table at its end."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.schema import Config
from ..errors import FAILED, FINISHED, MISTAKE, STOPPED
from ..paths import RUNS, shown
from ..text import align, tell
from .folder import Run, read_metrics


@dataclass
class Outcome:
    overrides: list[str]
    number: int = 0
    folder_name: str | None = None  # of a new run in a sweep
    config: Config | None = None
    resumed: Path | None = None  # the folder of the run, if the job did not begin it
    code: int = FAILED

    def result(self) -> dict[str, Any]:
        """Return `status`; with a run also `run`, and its result: `steps`, `best`, `last` …"""
        folder = self.resumed
        if folder is None and self.config is not None:
            own = RUNS / self.config.name / str(self.folder_name)
            folder = next((p for p in (*own.parent.glob(f"{own.name}-*"), own) if p.is_dir()), None)
        if folder is None:
            ended = {FINISHED: "finished", MISTAKE: "mistake", STOPPED: "stopped"}
            return {"status": ended.get(self.code, "failed")}
        manifest = Run(folder, None).manifest()
        result = manifest.get("result") or {}
        if result.get("last", 0) is None:  # of a run without a validation, or NaN
            rows = read_metrics(folder)
            result["last"] = next((r[m] for r in rows[::-1] if (m := result["monitor"]) in r), None)
        result = {k: v for k, v in result.items() if v is not None}
        is_lost = manifest["status"] == "running" and self.code == FAILED
        status = "killed" if is_lost or self.code > 128 else manifest["status"]
        return {"status": status, "run": shown(folder), **result}


def report(outcomes: Sequence[Outcome]) -> None:
    """Print how the jobs of a sweep ended. Print nothing if no job has a run."""
    rows = [(outcome, outcome.result()) for outcome in outcomes]
    if not any("run" in result for _, result in rows):
        return
    shared = set.intersection(*(set(outcome.overrides) for outcome in outcomes))
    lines = [["job", "overrides", "status", "steps", "best", "last", "run"]]
    for outcome, result in rows:
        own = [o for o in outcome.overrides if o not in shared or len(outcomes) == 1]
        status = result["status"] + (f" ({outcome.code})" if outcome.code else "")
        values = [str(result.get(column, "")) for column in ("steps", "best", "last")]
        cells = [str(outcome.number), " ".join(own), status, *values]
        lines.append([*map(_short, cells), result.get("run", "")])
    tell(*align(lines, left=len(lines[0])))
    judged = [(result["best"], outcome) for outcome, result in rows if "best" in result]
    monitors = {(o.config.monitor, o.config.monitor_mode) for _, o in judged if o.config}
    if len(monitors) == 1:
        ((monitor, mode),) = monitors
        best, outcome = (max if mode == "max" else min)(judged, key=lambda one: one[0])
        tell(f"Best: job {outcome.number} with {monitor} {best:.4g}.")


def _short(text: str) -> str:
    """Return a text with long numbers in 4 digits; the run has all digits."""
    return re.sub(r"-?\b\d+\.\d{4,}(e-?\d+)?", lambda found: f"{float(found[0]):.4g}", text)
