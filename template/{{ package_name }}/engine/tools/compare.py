"""`compare RUN…`: runs side by side: what differs, how they ended, their curves. Without torch."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config.schema import OPERATIONAL
from ..errors import UserError
from ..paths import shown
from ..text import align
from .folders import runs_below
from .plots import new_figure, save_figure
from .summary import Summary, read

_ASIDE = OPERATIONAL | {"name"}
"""Config keys that do not change a result."""


def compare(folders: Sequence[Path], out: Path, tag: str | None) -> None:
    """Print a table and, over seeds, means; draw the curves. Raises `UserError`."""
    found = dict.fromkeys(run for folder in folders for run in runs_below(folder))
    runs = [read(folder) for folder in found]
    if not runs:
        raise UserError(f"There are no runs below {', '.join(map(str, folders))}.")
    keys = differing_keys(runs)
    monitors = sorted({run.monitor for run in runs})
    tags = [tag] if tag else monitors
    drawable = any(run.curve(name) for run in runs for name in tags)
    if tag and not drawable:
        raise UserError(f"None of the runs has logged {tag}; name another tag as --key.")
    head = ["run", *keys, "status", "steps", *_columns(monitors), "weights"]
    print(*align([head, *(line(run, keys) for run in runs)]), sep="\n")
    for sentence in over_seeds(runs):
        print(sentence)
    if drawable:
        draw(runs, keys, tags, out)
        print(f"The curves: {shown(out)}", flush=True)


def differing_keys(runs: Sequence[Summary]) -> list[str]:
    """The config keys that not all runs have with the same value, but for those set aside."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    missing = object()
    return [
        key
        for key in keys
        if key.split(".")[0] not in _ASIDE
        and any(run.config.get(key, missing) != runs[0].config.get(key, missing) for run in runs)
    ]


def _columns(monitors: Sequence[str]) -> list[str]:
    what = f" {monitors[0]}" if len(monitors) == 1 else ""
    return [f"last{what}", f"best{what}"]


def line(run: Summary, keys: Sequence[str]) -> list[str]:
    """A run's cells of the table."""
    values = [_shown(run.config.get(key)) for key in keys]
    return [run.shown, *values, run.status, str(run.steps), _digits(run.last), _digits(run.best),
            run.weights]  # fmt: skip


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def over_seeds(runs: Sequence[Summary]) -> list[str]:
    """Mean ± standard deviation over finished runs that differ in `seed` alone, each seed once."""
    groups: dict[str, dict[Any, Summary]] = {}
    for run in runs:
        if run.status == "finished" and run.last is not None:
            aside = {"seed", *(k for k in run.config if k.split(".")[0] in _ASIDE)}
            rest = {k: v for k, v in run.config.items() if k not in aside}
            name = json.dumps(rest, sort_keys=True, default=str)
            groups.setdefault(name, {})[run.config.get("seed")] = run
    groups = {name: by_seed for name, by_seed in groups.items() if len(by_seed) > 1}
    firsts = [next(iter(by_seed.values())) for by_seed in groups.values()]
    keys = [key for key in differing_keys(firsts) if key != "seed"] if len(firsts) > 1 else []
    sentences = []
    for by_seed in groups.values():
        members = list(by_seed.values())
        which = ", ".join(f"{k}={_shown(members[0].config.get(k))}" for k in keys)
        texts = []
        for word in ("last", "best"):
            values = [getattr(run, word) for run in members]
            spread = statistics.stdev(values)
            texts.append(f"{word} {statistics.fmean(values):.5g} ± {spread:.2g}")
        seeds = ", ".join(map(str, sorted(by_seed)))
        sentences.append(
            f"{members[0].monitor} over seeds {seeds}{' with ' + which if which else ''}: "
            f"{', '.join(texts)} (mean ± standard deviation of {len(members)} runs)"
        )
    return sentences


def draw(runs: Sequence[Summary], keys: Sequence[str], tags: Sequence[str], path: Path) -> None:
    """One curve per run and tag."""
    figure, axes = new_figure()
    several = len(tags) > 1
    drawn = 0
    names = [", ".join(f"{k}={_shown(run.config.get(k))}" for k in keys) for run in runs]
    if not keys or max(map(len, names)) > 60:  # would be wider than the picture
        names = [run.shown for run in runs]
    for run, name in zip(runs, names, strict=True):
        for tag in tags:
            points = run.curve(tag)
            if points:
                steps, values = zip(*points, strict=True)
                axes.plot(steps, values, marker="." if len(points) < 30 else "",
                          label=f"{name} {tag}" if several else name)  # fmt: skip
                drawn += 1
    axes.set(xlabel="optimizer step", ylabel=", ".join(tags))
    if drawn <= 20:  # a longer legend would hide the curves
        axes.legend(fontsize=7)
    save_figure(figure, path)
