"""`compare RUN…`: a table of runs, means over seeds, and curves. Without torch."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml

from ..config.schema import OPERATIONAL
from ..config.stored import flat, refuse_aliases
from ..errors import UserError, one_line
from ..paths import RUNS, refuse_links, shown
from ..run.folder import Run, read_metrics
from ..text import align, tell
from .curves import plot
from .folders import new_figure, runs_below, save_figure

_IGNORED = OPERATIONAL | {"name"}  # config keys that do not change a result


class Summary:
    """What the files of a run say about it. Raises `UserError`."""

    def __init__(self, folder: Path) -> None:
        refuse_links(folder)
        manifest, path = Run(folder, None).manifest(), folder / "config.yaml"
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # written in C, ten times as quick
        try:  # without a check, because another version may have written it
            text = path.read_text(encoding="utf-8")
            refuse_aliases(text, shown(path))
            config = flat(yaml.load(text, loader))
        except (OSError, ValueError, AttributeError, RecursionError, yaml.YAMLError) as error:
            text = f"{shown(path)} cannot be read: {one_line(error)}. Restore it."
            raise UserError(text) from error
        self.shown, self.status, self.config = shown(folder, RUNS), manifest["status"], config
        self.rows, self.monitor = read_metrics(folder), str(config.get("monitor"))
        values = [row[self.monitor] for row in self.rows if self.monitor in row]
        pick = max if config.get("monitor_mode") == "max" else min
        self.best = pick(filter(math.isfinite, values), default=None)
        self.last = values[-1] if values and math.isfinite(values[-1]) else None
        result = manifest.get("result") or {}
        self.weights = (result.get("ema_sha256") or result.get("weights_sha256") or "")[:12]


def compare_runs(folders: Sequence[Path], out: Path, tag: str | None) -> None:
    """Print a table and the means over seeds; draw the curves. Raises `UserError`."""
    found = dict.fromkeys(run for folder in folders for run in runs_below(folder))
    runs = [Summary(folder) for folder in found]
    drawn = tag or next((run.monitor for run in runs if run.best is not None), None)
    if tag and not any(tag in row for run in runs for row in run.rows):
        raise UserError(f"None of the runs has logged '{tag}'. Name another tag with --key.")
    keys = differing_keys(runs)
    monitor = f" {runs[0].monitor}" if len({run.monitor for run in runs}) == 1 else ""
    table = [["run", *keys, "status", "steps", f"last{monitor}", f"best{monitor}", "weights"]]
    for run in runs:
        steps = max((row["step"] for row in run.rows), default=0)
        ends = ("-" if value is None else f"{value:.5g}" for value in (run.last, run.best))
        table.append([run.shown, *_values(run, keys), run.status, str(steps), *ends, run.weights])
    tell(*align(table), *means_over_seeds(runs))
    if drawn:
        draw_comparison(runs, keys, drawn, out)
        tell(f"The curves: {shown(out)}")


def differing_keys(runs: Sequence[Summary]) -> list[str]:
    keys = dict.fromkeys(key for run in runs for key in run.config)
    return [
        key
        for key in keys
        if key.split(".")[0] not in _IGNORED and len({str(run.config.get(key)) for run in runs}) > 1
    ]


def _values(run: Summary, keys: Sequence[str]) -> list[str]:
    values = (run.config.get(key) for key in keys)
    return ["-" if value is None else str(value) for value in values]


def _settings(run: Summary, keys: Sequence[str]) -> str:
    return ", ".join(map("=".join, zip(keys, _values(run, keys), strict=True)))


def means_over_seeds(runs: Sequence[Summary]) -> Iterator[str]:
    """Average finished runs whose configs differ only in `seed`; each seed counts once."""
    finished = [run for run in runs if run.status == "finished" and run.last is not None]
    keys = [key for key in differing_keys(finished) if key != "seed"]
    groups: dict[str, dict[Any, Summary]] = {}
    for run in finished:
        groups.setdefault(_settings(run, keys), {})[run.config.get("seed")] = run
    for name, by_seed in groups.items():
        if len(by_seed) > 1:
            group = list(by_seed.values())
            last, best = zip(*((run.last, run.best) for run in group), strict=True)
            seeds = ", ".join(map(str, sorted(by_seed))) + (f" with {name}" if name else "")
            yield (
                f"{group[0].monitor} over seeds {seeds}: last {_spread(last)}, best {_spread(best)} "
                f"(mean ± standard deviation of {len(group)} runs)"
            )


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.5g} ± {stdev(values):.2g}"


def draw_comparison(runs: Sequence[Summary], keys: Sequence[str], tag: str, path: Path) -> None:
    figure, (axes,) = new_figure()
    names = [_settings(run, keys) for run in runs]
    if not keys or max(map(len, names)) > 60:  # would be wider than the picture
        names = [run.shown for run in runs]
    for run, name in zip(runs, names, strict=True):
        plot(axes, run.rows, tag, name, markers=29)
    axes.set(xlabel="optimizer step", ylabel=tag)
    save_figure(figure, path)
