"""Which run a command means: the one that it names, the best of a folder, or the newest."""

import contextlib
from pathlib import Path

from ..errors import UserError
from ..paths import RUNS, refuse_links, shown
from ..run.find import started
from ..text import number, say, spread
from .compare import Summary, by_setting
from .folders import runs_below


def one_run(folder: Path | None) -> Path:
    """Return `folder` if it is a run, else the best run in it. None: the newest of all runs.

    Says which run it is, if the command does not. Raises `UserError`.
    """
    if folder is None:
        run = newest_run()
        say(f"{shown(run)} is the newest run.")
    elif (found := runs_below(folder)) == [folder]:
        run = folder
    else:
        run = _best(folder, found)
    refuse_links(run)
    return run


def holds_runs(path: Path) -> bool:
    """Return True if a word of a command names a run, a folder of runs or a place for runs."""
    with contextlib.suppress(UserError):
        return bool(runs_below(path))
    return not path.exists() or path.is_relative_to(RUNS)


def newest_run() -> Path:
    """Return the run that began last. What `reproduce` trained again, in NAME/reproduced/, does not
    count. Raises `UserError`."""
    again = {run for run in runs_below(RUNS) if run.parent.name == "reproduced"}
    again -= {run for run in again if run.parent.parent == RUNS}  # runs of that name
    newest = max({*runs_below(RUNS)} - again, key=started, default=None)
    if newest is None:
        raise UserError(f"{shown(RUNS)} holds only runs that `reproduce` made. Name one of them.")
    return newest


def _best(folder: Path, found: list[Path]) -> Path:
    if len(found) == 1:
        say(f"{shown(found[0])} is the only run in {shown(folder)}.")
        return found[0]
    runs = [run for run in map(Summary, found) if run.best is not None]
    if not runs:
        raise UserError(f"No run in {shown(folder)} was validated. Name one: {shown(found[-1])}.")
    kinds = {(run.monitor, run.config.get("monitor_mode")) for run in runs}
    if len(kinds) > 1:
        raise UserError(
            f"The runs in {shown(folder)} monitor different values: "
            f"{', '.join(sorted(f'{monitor} ({mode})' for monitor, mode in kinds))}. Name one run."
        )
    ((monitor, mode),) = kinds
    worst_first = sorted(runs, key=lambda run: run.best, reverse=mode != "max")
    groups = by_setting(worst_first)  # of equal configs, the better run counts
    setting, group = next(iter(groups.items()))
    best = max(group, key=worst_first.index)
    shown_best = shown(best.folder)
    if max(map(len, groups.values())) == 1 or len(groups) == 1:
        say(f"{shown_best} is the best of {len(runs)} runs: {monitor} {number(best.best)}.")
    else:
        mean = f"{setting}: {monitor} {spread([run.best for run in group])}"
        say(f"{shown_best} is the best run of the setting with the best mean, {mean}.")
    return best.folder
