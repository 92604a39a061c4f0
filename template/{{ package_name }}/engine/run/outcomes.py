"""How the jobs of a sweep ended: the table at its end."""

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.schema import Config
from ..errors import FAILED, FINISHED, MISTAKE, STOPPED, UserError
from ..paths import RUNS, shown
from ..text import align
from .folder import find_run


@dataclass
class Outcome:
    """How a job ended: a row of the table."""

    overrides: list[str]
    number: int = 0
    folder_name: str | None = None
    """The name of a new run's folder in a sweep."""
    config: Config | None = None
    code: int = FAILED

    def folder(self) -> Path | None:
        """Return the run folder of the job, or None if it has no run."""
        if self.config is None:
            return None
        if self.config.resume is not None:
            with contextlib.suppress(UserError):
                return find_run(self.config)
        own = RUNS / self.config.name / str(self.folder_name)
        found = [*own.parent.glob(f"{own.name}-*"), own]  # -1 if the name was taken
        return next((path for path in found if path.is_dir()), None)

    def result(self) -> dict[str, Any]:
        """Return `status`, and for a finished run `steps`, `best`, `last` and more."""
        folder = self.folder()
        ended = {FINISHED: "finished", MISTAKE: "mistake", STOPPED: "stopped"}
        if folder is None:
            return {"status": ended.get(self.code, "failed")}
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        values = {
            "status": manifest["status"],
            "run": shown(folder),
            **(manifest.get("result") or {}),
        }
        return {key: value for key, value in values.items() if value is not None}


def report(outcomes: Sequence[Outcome]) -> None:
    """Print how the jobs of a sweep ended. Print nothing if no job has a run."""
    results = [outcome.result() for outcome in outcomes]
    if not any("run" in result for result in results) or outcomes[0].folder_name is None:
        return
    shared = set.intersection(*(set(outcome.overrides) for outcome in outcomes))
    lines = [["job", "overrides", "status", "steps", "best", "last", "run"]]
    for outcome, result in zip(outcomes, results, strict=True):
        own = [o for o in outcome.overrides if o not in shared or len(outcomes) == 1]
        status = result["status"] + (f" ({outcome.code})" if outcome.code else "")
        values = [str(result.get(column, "")) for column in ("steps", "best", "last")]
        cells = [str(outcome.number), " ".join(own), status, *values]
        lines.append([*map(_short, cells), result.get("run", "")])
    print(*align(lines, left=len(lines[0])), sep="\n")
    judged = [
        (result["best"], o) for o, result in zip(outcomes, results, strict=True) if "best" in result
    ]
    monitors = {(o.config.monitor, o.config.monitor_mode) for _, o in judged if o.config}
    if len(monitors) == 1:
        ((monitor, mode),) = monitors
        best, outcome = (max if mode == "max" else min)(judged, key=lambda one: one[0])
        print(f"Best: job {outcome.number} with {monitor} {best:.4g}.", flush=True)


def _short(text: str) -> str:
    """Return a text with long numbers in 4 digits; the run has all digits."""
    return re.sub(r"-?\b\d+\.\d{4,}(e-?\d+)?", lambda found: f"{float(found[0]):.4g}", text)
