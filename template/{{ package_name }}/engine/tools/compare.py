"""`compare RUN…`: a table of runs, means over seeds, and curves. Without torch."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ..config.schema import OPERATIONAL
from ..config.stored import config_text, flat, parse_values
from ..errors import UserError
from ..paths import RUNS, refuse_links, shown
from ..run.folder import Run, read_metrics
from ..run.outcomes import is_repeat, ranked
from ..text import align, spread, tell
from .curves import plot
from .folders import new_figure, runs_below, save_figure


class Summary:
    """What the files of a run say about it. Raises `UserError`."""

    def __init__(self, folder: Path) -> None:
        refuse_links(folder)
        manifest = Run(folder, None).manifest()
        # Without a check, because another version may have written it.
        config = flat(parse_values(*config_text(folder)))
        self.folder, self.shown, self.config = folder, shown(folder, RUNS), config
        self.status = manifest["status"]
        self.rows, self.monitor = read_metrics(folder), str(config.get("monitor"))
        values = [row[self.monitor] for row in self.rows if self.monitor in row]
        pick = max if config.get("monitor_mode") == "max" else min
        self.best: Any = pick(filter(math.isfinite, values), default=None)
        self.last = values[-1] if values and math.isfinite(values[-1]) else None
        self.result = manifest.get("result") or {}
        digest = self.result.get("ema_sha256") or self.result.get("weights_sha256") or ""
        self.weights = digest[:12]


def compare_runs(folders: Sequence[Path], out: Path, tag: str | None, word: str | None) -> None:
    """Print a table and the means over seeds; draw the curves. Raises `UserError`.

    tag: what to draw; None: the monitored value. word: only runs that have it among their `tags`.
    """
    found = dict.fromkeys(run for folder in folders for run in runs_below(folder))
    runs = [run for run in map(Summary, found) if not word or word in run.config.get("tags", ())]
    if not runs:
        raise UserError(f"None of the runs has the tag '{word}'. Set tags=[{word}] in a run.")
    drawn = tag or next((run.monitor for run in runs if run.best is not None), None)
    if tag and not any(tag in row for run in runs for row in run.rows):
        raise UserError(f"None of the runs has logged '{tag}'. Name another tag with --key.")
    keys = differing_keys(runs)
    columns = [*keys, *(["tags"] if any(run.config.get("tags") for run in runs) else [])]
    monitor = f" {runs[0].monitor}" if len({run.monitor for run in runs}) == 1 else ""
    table = [["run", *columns, "status", "steps", f"last{monitor}", f"best{monitor}", "weights"]]
    for run in runs:
        steps = max((row["step"] for row in run.rows), default=0)
        ends = ("-" if value is None else f"{value:.5g}" for value in (run.last, run.best))
        cells = [run.shown, *_values(run, columns), run.status, str(steps), *ends, run.weights]
        table.append(cells)
    tell(*align(table), *means_over_repeats(runs))
    if drawn:
        draw_comparison(runs, keys, drawn, out)
        tell(f"The curves: {shown(out)}")


def differing_keys(runs: Sequence[Summary]) -> list[str]:
    """Return the config keys in which runs differ. The class of a section speaks for its keys."""
    found = []
    for key in dict.fromkeys(key for run in runs for key in run.config):
        section = key.partition(".")[0]
        target = f"{section}._target_"
        owners = ["" if key == target else run.config.get(target) for run in runs]
        values = (str(run.config.get(key)) for run in runs)
        differs = len({*zip(owners, values, strict=True)}) > len({*owners})
        if differs and section not in OPERATIONAL | {"name"}:  # these do not change a result
            found.append(key)
    return found


def _values(run: Summary, keys: Sequence[str]) -> list[str]:
    values = (run.config.get(key) for key in keys)
    return ["-" if value is None else str(value) for value in values]


def _settings(run: Summary, keys: Sequence[str]) -> str:
    return ", ".join(map("=".join, zip(keys, _values(run, keys), strict=True)))


def by_setting(runs: Sequence[Summary]) -> dict[str, list[Summary]]:
    """Group validated runs whose configs differ only in `seed` or a fold, the best mean first.

    Of several runs of one config, the last counts.
    """
    keys = differing_keys(runs)
    repeats, others = [k for k in keys if is_repeat(k)], [k for k in keys if not is_repeat(k)]
    groups: dict[str, dict[str, Summary]] = {}
    for run in runs:
        groups.setdefault(_settings(run, others), {})[_settings(run, repeats)] = run
    values = {name: [run.best for run in group.values()] for name, group in groups.items()}
    order = ranked(values, str(runs[0].config.get("monitor_mode")))
    return {name: list(groups[name].values()) for name in order}


def means_over_repeats(runs: Sequence[Summary]) -> Iterator[str]:
    """Average the finished runs of each setting."""
    finished = [run for run in runs if run.status == "finished" and run.last is not None]
    for name, group in by_setting(finished).items() if finished else ():
        over = []
        for key in filter(is_repeat, differing_keys(group)):
            values = sorted({str(run.config.get(key)) for run in group}, key=lambda v: (len(v), v))
            over.append(f"{key.rpartition('.')[2]}s {', '.join(values)}")
        if len(group) > 1:
            last, best = ([getattr(run, what) for run in group] for what in ("last", "best"))
            yield (
                f"{group[0].monitor} over {' and '.join(over)}{f' with {name}' if name else ''}: "
                f"last {spread(last, 5)}, best {spread(best, 5)} "
                f"(mean ± standard deviation of {len(group)} runs)"
            )


def draw_comparison(runs: Sequence[Summary], keys: Sequence[str], tag: str, path: Path) -> None:
    """Draw a tag over the steps in one colour for each setting: its mean over seeds and folds."""
    figure, (axes,) = new_figure()
    runs = [run for run in runs if any(tag in row for row in run.rows)]
    count = Counter(_settings(run, keys) for run in runs)
    groups: dict[str, list[Summary]] = {}
    for run in runs:
        setting = _settings(run, [key for key in keys if not is_repeat(key)])
        is_again = count[_settings(run, keys)] > 1  # the code may have changed: a line of its own
        groups.setdefault(run.shown if is_again else setting, []).append(run)
    is_wide = max(map(len, groups)) > 60  # names would be wider than the picture
    for number, (name, group) in enumerate(groups.items()):
        mean = f"mean of {len(group)} runs" if len(group) > 1 else ""
        shown = group[0].shown if is_wide or not (name or mean) else name
        _draw_mean(axes, group, tag, ", ".join(filter(None, (shown, mean))), f"C{number}")
    axes.set(xlabel="optimizer step", ylabel=tag)
    save_figure(figure, path)


def _draw_mean(axes: Any, runs: Sequence[Summary], tag: str, label: str, color: str) -> None:
    """Draw the mean at the steps that all runs have logged, and a band of ± one deviation."""
    logged = [{row["step"]: row[tag] for row in run.rows if tag in row} for run in runs]
    steps = sorted(set.intersection(*map(set, logged)))
    points = [(step, [values[step] for values in logged]) for step in steps]
    rows = [{"step": step, tag: fmean(values)} for step, values in points]
    plot(axes, rows, tag, label, markers=29, color=color)
    if len(logged) > 1:
        points = [(step, values) for step, values in points if all(map(math.isfinite, values))]
        means = [(step, fmean(values), stdev(values)) for step, values in points]
        low, high = ([m + sign * d for _, m, d in means] for sign in (-1, 1))
        axes.fill_between([step for step, *_ in means], low, high, color=color, alpha=0.2, lw=0)
