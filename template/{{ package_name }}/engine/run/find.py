"""Find runs: all of a name, and the one to go on with."""

import os
from datetime import datetime
from pathlib import Path

from ..config.schema import EXTENDING, OPERATIONAL, Config
from ..config.stored import MOVABLE, changed_keys, is_shorter, read_config
from ..errors import UserError
from ..paths import ROOT, RUNS, shown
from ..text import say
from .folder import Run


def is_run(folder: Path) -> bool:
    """Return whether a folder holds a run. False if no file system takes such a path."""
    return all(os.path.isfile(folder / name) for name in ("manifest.json", "config.yaml"))


def find_run(config: Config) -> Path | None:
    """Return the run that `resume=` names; None if `auto` finds none. Raises `UserError`."""
    assert config.resume is not None
    if config.resume == "auto":
        return _newest_equal(config)
    folder = ROOT / os.path.expanduser(config.resume)
    if not is_run(folder):
        runs = (os.path.isdir(folder) and all_runs(str(folder))) or all_runs(config.name)
        hint = f", such as {shown(max(runs, key=started))}" if runs else ""
        raise UserError(f"resume={config.resume} is not a run. Name a run folder{hint}.")
    return folder


def all_runs(name: str) -> list[Path]:
    """Return the run folders of a name, in no order."""
    try:  # Path.glob would say nothing of a folder that it may not read
        names = [entry for entry in os.listdir(RUNS / name) if entry[0] != "."]
        return [RUNS / name / n for n in names if (RUNS / name / n / "manifest.json").is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{shown(RUNS / name)} cannot be read: {error.strerror}.") from error


def started(folder: Path) -> tuple[float, str]:
    """Return when a run began, in seconds since 1970; 0 if its manifest is damaged."""
    try:
        began = datetime.fromisoformat(Run(folder, None).manifest()["started"]).timestamp()
    except (UserError, KeyError, TypeError, ValueError):
        began = 0.0
    return began, folder.name


def _newest_equal(config: Config) -> Path | None:
    """Return the newest run with the config, apart from keys that a resumed run may change."""
    differing = {folder: _differences(folder, config) for folder in all_runs(config.name)}
    if not differing:
        return None
    fewest = min(map(len, differing.values()))
    near = max((folder for folder in differing if len(differing[folder]) == fewest), key=started)
    if fewest == 0:
        say(f"resume=auto goes on with {shown(near)}.")
        return near
    say(
        f"No run of '{config.name}' has this config. The nearest, {shown(near)}, differs in "
        f"{', '.join(sorted(differing[near]))}. A new run begins."
    )
    return None


def _differences(folder: Path, config: Config) -> set[str]:
    """Return the keys for which a run cannot go on with the config."""
    try:
        own = read_config(folder)
    except UserError:  # a version with other keys made it, or it is damaged
        return {"config.yaml, which cannot be read"}
    keys = changed_keys(own, config) - OPERATIONAL
    place = own.data.get("root", own.data.get("path"))
    is_there = not isinstance(place, str) or (ROOT / os.path.expanduser(place)).exists()
    if is_there and any(own.data.get(k) != config.data.get(k) for k in MOVABLE):
        keys.add("data")  # else the data may have moved
    return keys if is_shorter(own, config) else keys - EXTENDING
