"""Going on with a run: which of its checkpoints can be used, and whether it is still the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .config.schema import EXTENDING, OPERATIONAL, Config
from .config.stored import changed_keys, parse_config, read_config, to_yaml
from .errors import Failed, UserError
from .loop import Loop
from .machine import distributed
from .paths import delete_temporary_files, write_whole
from .run import checkpoint
from .run.facts import fingerprint_differences, timestamp
from .run.folder import Run
from .text import logger


def restore(loop: Loop, run: Run) -> None:
    """Load the newest whole checkpoint; without any, the run starts at its first step.

    Raises `UserError` where data or shapes do not fit, `Failed` where no checkpoint is whole.
    """
    stored = read_config(run.folder)
    state = None
    path, found = None, False
    if distributed.is_main():
        delete_temporary_files(run.folder)
        path, state, found = _newest_whole(run, stored)
    path, found = distributed.from_main((path, found))
    differences: list[str] = []
    if path is not None:
        state = state or checkpoint.load(path)
        loop.load_state_dict(state)
        differences = _compare(
            state["fingerprint"], loop.parts.fingerprint, loop.config.allow_changed_data
        )
        if distributed.from_main(_best_is_lost(run, stored) if distributed.is_main() else None):
            loop.best_saved = None
    elif found:
        raise Failed(
            f"No checkpoint in {run.shown}/checkpoints can be used; restore one from a backup, or "
            "start a new run."
        )
    else:
        logger.info(f"{run.shown} has no checkpoint yet: it starts at its first step.")
    extended = sorted(changed_keys(stored, loop.config) & EXTENDING)
    if extended and not loop.parts.scheduler.can_be_extended:
        raise UserError(
            f"{', '.join(extended)} cannot be changed: this run's schedule is one cycle over its "
            "whole length; start a new run."
        )
    if extended and distributed.is_main():
        logger.warning(
            f"{', '.join(extended)} changed: the schedule from here on is that of the longer run."
        )
        write_whole(run.folder / "config.yaml", to_yaml(loop.config))
    resumed = {
        "step": loop.step,
        "time": timestamp(),
        "extended": {key: getattr(loop.config, key) for key in extended},
        "differences": differences,
    }
    run.update_manifest(
        status="running",
        fingerprint=loop.parts.fingerprint,
        resumed=[*run.manifest().get("resumed", []), resumed],
    )


def _newest_whole(run: Run, config: Config) -> tuple[Path | None, dict[str, Any] | None, bool]:
    """The newest checkpoint that can be used and what it holds; and whether there was any."""
    folder = run.checkpoints
    delete_temporary_files(folder)
    paths = checkpoint.newest_first(folder)
    if (folder / "best.pt").exists():
        paths.append(folder / "best.pt")
    for path in paths:
        try:
            state = checkpoint.load(path)
            _check_origin(path, state, config)
            return path, state, True
        except checkpoint.Damaged as error:
            logger.warning(f"{error}; it is put aside and the checkpoint before it is used.")
            _put_aside(path)
        except checkpoint.Unusable as error:
            logger.warning(f"{error}; the checkpoint before it is used.")
        except OSError as error:
            raise Failed(f"The checkpoint {path} cannot be read: {error}.") from error
    return None, None, bool(paths) or any(folder.glob("*.damaged"))


def _put_aside(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}.damaged"))


def _check_origin(path: Path, state: dict[str, Any], config: Config) -> None:
    """Raises `Unusable` for a checkpoint that another run wrote."""
    try:
        own = parse_config(str(state["config"]), "Its config")
    except UserError as error:
        raise checkpoint.Unusable(f"{path.name} is not of this run: {error}") from error
    others = sorted(changed_keys(config, own) - OPERATIONAL - EXTENDING)
    if others:
        raise checkpoint.Unusable(
            f"{path.name} belongs to another run (its {', '.join(others)} differ)"
        )


def _best_is_lost(run: Run, config: Config) -> bool:
    """Whether there is no best.pt of this run; what else has that name is put aside."""
    path = run.checkpoints / "best.pt"
    try:
        if path.exists():
            _check_origin(path, checkpoint.load(path), config)
    except checkpoint.Unusable as error:
        logger.warning(
            f"{error}; it is put aside, and the best of the validations to come takes its place."
        )
        _put_aside(path)
    except OSError as error:
        raise Failed(f"The checkpoint {path} cannot be read: {error}.") from error
    return not path.exists()


def _compare(stored: dict[str, Any], now: dict[str, Any], allow_changed_data: bool) -> list[str]:
    """Refuse other data; say what else makes the resumed run no longer bit-exact."""
    if stored["data"] != now["data"] and not allow_changed_data:
        raise UserError(
            "The data have changed since the checkpoint was written: bring the old data back, go on "
            "with the new as allow_changed_data=true, or start a new run."
        )
    differences = fingerprint_differences(stored, now)
    if differences:
        logger.warning(f"This run is no longer bit-exact: {', '.join(differences)}.")
    return differences
