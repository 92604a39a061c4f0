"""How the jobs of a sweep ended: the table at its end."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.schema import Config
from ..errors import FAILED, FINISHED, MISTAKE, STOPPED
from ..paths import shown
from ..text import align, say, spread, tell
from .folder import Run, read_metrics


@dataclass
class Outcome:
    overrides: list[str]
    number: int = 0
    folder_name: str | None = None  # of a new run in a sweep
    config: Config | None = None
    run: Path | None = None  # once it has one
    code: int = FAILED
    mistake: str = ""  # the sentence, if it ended with a mistake

    def result(self) -> dict[str, Any]:
        """Return `status`; with a run also `run`, and its result: `steps`, `best`, `last` …"""
        if self.run is None:
            ended = {FINISHED: "finished", MISTAKE: "mistake", STOPPED: "stopped"}
            return {"status": ended.get(self.code, "failed")}
        manifest = Run(self.run, None).manifest()
        result = manifest.get("result") or {}
        if result.get("last", 0) is None:  # of a run without a validation, or NaN
            rows = read_metrics(self.run)
            result["last"] = next((r[m] for r in rows[::-1] if (m := result["monitor"]) in r), None)
        result = {k: v for k, v in result.items() if v is not None}
        is_lost = manifest["status"] == "running" and self.code == FAILED
        status = "killed" if is_lost or self.code > 128 else manifest["status"]
        return {"status": status, "run": shown(self.run), **result}


def is_repeat(key: str) -> bool:
    """Return True for a key that repeats a setting: with another seed, or on another fold."""
    return key == "seed" or key.rpartition(".")[2] == "fold"


def ranked(settings: Mapping[str, Sequence[float]], mode: str) -> list[str]:
    """Return the settings, the one of the best mean first, and those without values last."""
    from statistics import fmean

    sign = -1 if mode == "max" else 1
    return sorted(settings, key=lambda s: sign * fmean(settings[s]) if settings[s] else math.inf)


def report_jobs(outcomes: Sequence[Outcome]) -> None:
    """Print how the jobs of a sweep ended, and the best of them. Print no table if no job has a run.

    Jobs that differ only in `seed` or a fold have one setting. Settings compete by their means.
    """
    for mistake, count in Counter(outcome.mistake for outcome in outcomes).items():
        if mistake and count > 1:
            say(f"{count} of {len(outcomes)} jobs ended with this mistake: {mistake}")
    rows = [(outcome, outcome.result()) for outcome in outcomes]
    if not any("run" in result for _, result in rows):
        return
    shared = set.intersection(*(set(outcome.overrides) for outcome in outcomes))
    judged = {(c.monitor, c.monitor_mode) for o, r in rows if (c := o.config) and "best" in r}
    monitor, mode = judged.pop() if len(judged) == 1 else ("", "")
    sign = -1 if mode == "max" else 1
    if monitor:
        rows.sort(key=lambda row: sign * row[1]["best"] if "best" in row[1] else math.inf)
    settings: dict[str, list[dict[str, Any]]] = {}
    lines = [["job", "overrides", "status", "steps", "best", "last", "run"]]
    for outcome, result in rows:
        own = [o for o in outcome.overrides if o not in shared or len(outcomes) == 1]
        setting = " ".join(o for o in own if not is_repeat(o.lstrip("+").partition("=")[0]))
        settings.setdefault(setting, []).append(result)
        status = result["status"] + (f" ({outcome.code})" if outcome.code else "")
        values = [str(result.get(column, "")) for column in ("steps", "best", "last")]
        cells = [str(outcome.number), " ".join(own), status, *values]
        lines.append([*map(_short, cells), result.get("run", "")])
    tell(*align(lines, left=len(lines[0])))
    if monitor and len(rows) == len(settings):
        tell(f"Best: job {rows[0][0].number} with {monitor} {rows[0][1]['best']:.4g}.")
    elif monitor:
        _report_means(settings, monitor, mode)


def _report_means(settings: dict[str, list[dict[str, Any]]], monitor: str, mode: str) -> None:
    """Print the means over the runs of each setting, the best setting first."""
    found = {s: [r["best"] for r in results if "best" in r] for s, results in settings.items()}
    lines = [["setting", "runs", "best", "last"]]
    for setting in (order := ranked(found, mode)):
        results = settings[setting]
        last = [r["last"] for r in results if "last" in r]
        count = f"{len(found[setting])} of {len(results)}"
        lines.append([_short(setting) or "all", count, spread(found[setting]), spread(last)])
    tell("", *align(lines, left=2))
    best = f"{monitor} {spread(found[order[0]])}"
    tell(f"Best: {_short(order[0]) or 'all'} with {best} (mean ± standard deviation).")


def _short(text: str) -> str:
    """Return a text with long numbers in 4 digits; the run has all digits."""
    return re.sub(r"-?\b\d+\.\d{4,}(e-?\d+)?", lambda found: f"{float(found[0]):.4g}", text)
