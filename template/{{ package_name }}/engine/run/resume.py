"""Going on with a run: find a checkpoint that can be used, and check that it is the same run."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..config.schema import EXTENDING, LENGTH, OPERATIONAL, Config
from ..config.stored import changed_keys, parse_config, to_yaml
from ..errors import Failed, UserError
from ..machine import distributed
from ..paths import delete_temporary_files, shown, write_whole
from ..text import logger, say
from . import checkpoint, names
from .facts import fingerprint_differences, timestamp
from .folder import Run
from .names import BEST, SHARDED_BEST, Damaged, Unusable, bests, newest_first
from .source import source_hashes


def find_checkpoint(run: Run, stored: Config, mapped: bool = False) -> dict[str, Any] | None:
    """Return the newest usable state, in every process; None: nothing is saved. Raises `Failed`.

    mapped: leave its tensors in the files.
    """
    found, has_any, has_best, folder = None, False, False, run.checkpoints
    if distributed.is_main():
        delete_temporary_files(run.folder)
        if not folder.is_dir():
            folder.mkdir()
            logger.warning(f"{run.shown}/checkpoints is gone. The run begins again.")
        delete_temporary_files(folder)
        paths = [*newest_first(folder), *bests(folder)]
        has_any = bool(paths) or any(folder.glob("*.damaged"))
        found = first_usable(paths, _pass_over, stored, mapped)
        if found is not None:
            if found[1].get("is_best") and found[0].name != SHARDED_BEST:  # a kill before the link
                names.link_best(found[0])
            best = bests(folder)
            was_read = any(path.samefile(found[0]) for path in best)  # it is the same file
            has_best = was_read or bool(first_usable(best, _pass_over, stored, mapped=True))
    path, has_any, has_best = distributed.from_main((found and found[0], has_any, has_best))
    if path is None and has_any:
        where = f"{run.shown}/checkpoints"
        raise Failed(f"No checkpoint in {where} can be used. Restore one, or start a new run.")
    if path is None:
        logger.info(f"{run.shown} has no checkpoint yet. It starts at its first step.")
        return None
    state = checkpoint.load(path, mapped) if found is None else found[1]
    if not has_best:
        state["best"]["saved"] = None
    return state


def first_usable(
    paths: Iterable[Path],
    pass_over: Callable[[Unusable], None],
    config: Config | None = None,
    mapped: bool = False,
) -> tuple[Path, dict[str, Any]] | None:
    """Return the first checkpoint that can be used, and its state; None if there is none.

    pass_over: is told of each other one. config: that of the checkpoint's run. Raises `Failed`.
    """
    for path in paths:
        try:
            state = checkpoint.load(path, mapped)
            if config is not None:
                _check_origin(path, state, config)
            step = state["step"]
            is_named = path.name.startswith("step-")
            if step < 0 or (is_named and path.stem != names.path_of(path.parent, step).stem):
                raise Unusable(path, f"says that it is of step {step}")
            return path, state
        except Unusable as error:
            pass_over(error)
        except OSError as error:
            raise Failed(f"The checkpoint {path} cannot be read: {error}.") from error
    return None


def find_weights(folder: Path, which: str, mapped: bool = False) -> tuple[Path, dict[str, Any]]:
    """Return the checkpoint `which`, or the next newest that can be used. Raises `UserError`."""
    checkpoints = folder / "checkpoints"
    numbered, best = newest_first(checkpoints), bests(checkpoints)
    known = {"best": [*best, *numbered], "last": [*numbered, *best]}
    files = (path for path in (Path(which), checkpoints / which) if names.is_checkpoint(path))
    paths = known[which] if which in known else list(files)[:1]
    if not paths:
        others = ", ".join(path.name for path in (*best, *numbered))
        advice = f"Name one of {others}." if others else "Train until the run has saved one."
        raise UserError(f"There is no checkpoint '{which}' in {shown(folder)}. {advice}")
    if which == "best" and not best:
        say(f"The run has no {BEST} because it was not validated yet. {paths[0].name} is used.")
    errors: list[Unusable] = []
    found = first_usable(paths, errors.append, mapped=mapped)
    reasons = "; ".join(map(str, errors))
    if found is None:
        raise UserError(f"No checkpoint of {shown(folder)} can be used: {reasons}.")
    if errors:
        say(f"{reasons}. {found[0].name} is used.")
    return found


def _check_origin(path: Path, state: dict[str, Any], config: Config) -> None:
    try:
        own = parse_config(str(state["config"]), "Its config")
    except UserError as error:
        raise Unusable(path, f"is not of this run: {error}") from error
    others = sorted(changed_keys(config, own) - OPERATIONAL - EXTENDING)
    if others:
        raise Unusable(path, f"belongs to another run (its {', '.join(others)} differ)")
    kind = config.optimizer["_target_"]
    keeps_state = kind != "torch.optim.SGD" or config.optimizer.get("momentum")
    is_empty = not state["optimizer"] and not state["scaler"]  # fp16 may leave out the first steps
    if is_empty and state["step"] > 0 and keeps_state and kind.startswith("torch.optim."):
        raise Unusable(path, f"lacks the state of {kind}")


def _pass_over(error: Unusable) -> None:
    logger.warning(f"{error}. It is not used.")
    needs_name = error.path.name in (BEST, SHARDED_BEST)  # the next best one
    if needs_name or isinstance(error, Damaged):
        error.path.rename(error.path.with_name(f"{error.path.name}.damaged"))


def refuse_changes(changed: set[str], can_be_extended: bool, reader: str | None) -> None:
    """Refuse changed keys that would change the steps so far. Raises `UserError`."""
    if not can_be_extended and (keys := ", ".join(sorted(changed & LENGTH))):
        raise UserError(f"{keys} cannot be changed: the schedule is one cycle. Start a new run.")
    for key in sorted(changed & {"val_every_epochs", "val_every_steps"}):
        if reader is not None:
            raise UserError(f"{key} cannot change: {reader} reads validation. Leave it as it was.")


def record_resumed(
    run: Run,
    config: Config,
    stored: Config,
    state: dict[str, Any] | None,
    fingerprint: dict[str, Any],
) -> None:
    """Check that `run` can go on from `state`, and note in its manifest how. Raises `UserError`."""
    before = fingerprint if state is None else {"parallel": "ddp", **state["fingerprint"]}
    if before["data"] != fingerprint["data"] and not config.allow_changed_data:
        raise UserError("The data have changed. Bring the old back or set allow_changed_data=true.")
    differences, is_main = fingerprint_differences(before, fingerprint), distributed.is_main()
    if differences and is_main:
        logger.warning(f"This run is no longer bit-exact: {', '.join(differences)}.")
    was = run.manifest().get("source") or {}  # before 0.3.0, a manifest had none
    now = source_hashes() if is_main and was else {}
    if changed := [path for path in was if now.get(path, was[path]) != was[path]]:
        differences.append(f"changed source: {', '.join(changed)}")
    extended = sorted(changed_keys(stored, config) & EXTENDING)
    if is_main and (length := ", ".join(key for key in extended if key in LENGTH)):
        logger.warning(f"{length} changed: the schedule becomes that of the longer run.")
    if (extended or config.data != stored.data) and is_main:
        write_whole(run.folder / "config.yaml", to_yaml(config))
    resumed = {
        "step": 0 if state is None else state["step"],
        "time": timestamp(),
        "extended": {key: getattr(config, key) for key in extended},
        "differences": differences,
    }
    earlier = run.manifest().get("resumed", [])
    run.update_manifest(status="running", fingerprint=fingerprint, resumed=[*earlier, resumed])
