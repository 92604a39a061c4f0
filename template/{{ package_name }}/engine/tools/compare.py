"""`compare RUN…`: a table of runs, means over seeds, and curves. Without torch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ..config.schema import OPERATIONAL
from ..errors import UserError
from ..paths import shown
from ..text import align, tell
from .curves import plot
from .folders import Summary, new_figure, read_summary, runs_below, save_figure

_IGNORED = OPERATIONAL | {"name"}  # config keys that do not change a result


def compare_runs(folders: Sequence[Path], out: Path, tag: str | None) -> None:
    """Print a table and the means over seeds; draw the curves. Raises `UserError`."""
    found = dict.fromkeys(run for folder in folders for run in runs_below(folder))
    runs = [read_summary(folder) for folder in found]
    drawn = tag or next((run.monitor for run in runs if run.best is not None), None)
    if tag and not any(tag in row for run in runs for row in run.rows):
        raise UserError(f"None of the runs has logged '{tag}'. Name another tag with --key.")
    keys = differing_keys(runs)
    monitors = {run.monitor for run in runs}
    monitor = f" {runs[0].monitor}" if len(monitors) == 1 else ""
    head = ["run", *keys, "status", "steps", f"last{monitor}", f"best{monitor}", "weights"]
    table = align([head, *(_table_row(run, keys) for run in runs)])
    tell(*table, *means_over_seeds(runs))
    if drawn:
        draw_comparison(runs, keys, drawn, out)
        tell(f"The curves: {shown(out)}")


def differing_keys(runs: Sequence[Summary]) -> list[str]:
    """Return the config keys in which the runs differ, without the ignored ones."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    return [
        key
        for key in keys
        if key.split(".")[0] not in _IGNORED and len({str(run.config.get(key)) for run in runs}) > 1
    ]


def _table_row(run: Summary, keys: Sequence[str]) -> list[str]:
    steps = max((row["step"] for row in run.rows), default=0)
    last, best = ("-" if value is None else f"{value:.5g}" for value in (run.last, run.best))
    return [run.shown, *_values(run, keys), run.status, str(steps), last, best, run.weights]


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
        group = list(by_seed.values())
        if len(group) > 1:
            texts = []
            for word in ("last", "best"):
                values = [getattr(run, word) for run in group]
                texts.append(f"{word} {fmean(values):.5g} ± {stdev(values):.2g}")
            seeds = ", ".join(map(str, sorted(by_seed))) + (f" with {name}" if name else "")
            yield (
                f"{group[0].monitor} over seeds {seeds}: {', '.join(texts)} "
                f"(mean ± standard deviation of {len(group)} runs)"
            )


def draw_comparison(runs: Sequence[Summary], keys: Sequence[str], tag: str, path: Path) -> None:
    """Draw one curve for each run that has logged the tag."""
    figure, (axes,) = new_figure()
    names = [_settings(run, keys) for run in runs]
    if not keys or max(map(len, names)) > 60:  # would be wider than the picture
        names = [run.shown for run in runs]
    for run, name in zip(runs, names, strict=True):
        plot(axes, run.rows, tag, name, markers=29)
    axes.set(xlabel="optimizer step", ylabel=tag)
    save_figure(figure, path)
