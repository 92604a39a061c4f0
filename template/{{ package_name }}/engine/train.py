"""One run from its job to its result: build, check, make or reopen the folder, train, report."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from . import checkpoint, distributed, runs, signals
from .config import EXTENDING, OPERATIONAL, Config
from .errors import Exit, NotFiniteError, SaveError, Stopped, UserError, own_words
from .launch import Job
from .log import close_log, logger, number, open_log
from .loop import Loop
from .optim import table
from .runs import Run
from .setup import Parts, build_parts, check_one_batch


class Failed(Exit):
    """The run failed for a reason that one sentence can tell."""


def train(job: Job, loop_type: type[Loop] = Loop) -> float | None:
    """Do the job; returns the last monitored value. Raises `Exit` with the exit code's reason."""
    started = time.monotonic()
    run = job.run
    # A checkpoint holds all weights: what they were initialised from may be gone.
    parts = build_parts(job.config, initialise=run is None or not run.has_checkpoints())
    check_one_batch(parts)
    if run is None and distributed.is_main():
        manifest = {**runs.describe(job.overrides), "fingerprint": parts.fingerprint}
        run = runs.create(job.config, manifest, job.folder_name)
    shared = distributed.from_main(run)
    run = run or shared
    try:
        open_log(run.folder, job.config.log.level)
        loop = loop_type(parts, run, started)
        if job.run is not None:
            _restore(loop, run)
        with _recorded(run, job.config):
            _announce(parts, run, loop.step)
            loop.fit()
            result = _result(loop)
            run.update_manifest(status="finished", ended=runs.now(), result=result)
        _report(run, result)
        return loop.last
    finally:
        close_log()
        run.release()


@contextlib.contextmanager
def _recorded(run: Run, config: Config) -> Iterator[None]:
    """Writes how the run ended into its manifest and log, and turns failures into one sentence."""
    try:
        yield
    except Exit as error:
        status = {Stopped: "stopped", SaveError: "save failed", NotFiniteError: "not finite"}
        _close(run, status.get(type(error), "failed"))
        if isinstance(error, UserError):  # too late for a mistake without consequences
            raise Failed(own_words(error)) from error
        if isinstance(error, Stopped):
            raise Stopped(f"{error} Go on with: python train.py resume={run.shown}") from None
        raise
    except torch.OutOfMemoryError as error:
        _close(run, "failed")
        peak = torch.cuda.max_memory_allocated() / 2**30
        raise Failed(
            f"The GPU's memory is too small for batch_size={config.batch_size} with accumulate="
            f"{config.accumulate} (peak {peak:.1f} GiB): lower batch_size, or raise accumulate to "
            "keep it."
        ) from error
    except Exception as error:
        if "DataLoader worker" in str(error) and signals.requested():
            _close(run, "stopped")
            raise Stopped(
                f"Stopped by {signals.requested()} with its loader workers, without saving. Go on "
                f"with: python train.py resume={run.shown}"
            ) from None
        _close(run, "failed")
        if "DataLoader worker" in str(error) and "exited unexpectedly" in str(error):
            raise Failed(
                "A loader worker was killed, most likely because memory ran out: lower workers. "
                f"Go on with: python train.py resume={run.shown}"
            ) from error
        logger.exception(f"The run failed: {error}")
        raise Failed(f"The run failed; its folder is {run.shown}.") from error


def _close(run: Run, status: str) -> None:
    with contextlib.suppress(OSError):  # a full disk must not hide why the run ended
        run.update_manifest(status=status, ended=runs.now())


def _restore(loop: Loop, run: Run) -> None:
    """Load the newest whole checkpoint; without any, the run starts at its first step.

    Raises `UserError` where data or shapes do not fit, `Failed` where no checkpoint is whole.
    """
    stored = runs.read_config(run.folder)
    state = None
    path, found = None, False
    if distributed.is_main():
        runs.sweep(run.folder)
        path, state, found = _newest_whole(run, stored)
    path, found = distributed.from_main((path, found))
    differences: list[str] = []
    if path is not None:
        state = state or checkpoint.load(path)
        loop.load_state_dict(state)
        differences = _compare(
            state["fingerprint"], loop.parts.fingerprint, loop.config.allow_changed_data
        )
        if distributed.from_main(_best_is_lost(run) if distributed.is_main() else None):
            loop.best_saved = None
    elif found:
        raise Failed(
            f"No checkpoint in {run.shown}/checkpoints can be used; restore one from a backup, or "
            "start a new run."
        )
    else:
        logger.info(f"{run.shown} has no checkpoint yet: it starts at its first step.")
    extended = sorted(runs.changes(stored, loop.config) & EXTENDING)
    if extended and not loop.parts.scheduler.can_be_extended:
        raise UserError(
            f"{', '.join(extended)} cannot be changed: this run's schedule is one cycle over its "
            "whole length; start a new run."
        )
    if extended and distributed.is_main():
        logger.warning(
            f"{', '.join(extended)} changed: the schedule from here on is that of the longer run."
        )
        text = runs.to_yaml(loop.config)
        temporary = run.folder / ".config.yaml.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, run.folder / "config.yaml")
    resumed = {
        "step": loop.step,
        "time": runs.now(),
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
    checkpoint.sweep(folder)
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
        own = runs.parse_config(str(state["config"]), "Its config")
    except UserError as error:
        raise checkpoint.Unusable(f"{path.name} is not of this run: {error}") from error
    others = sorted(runs.changes(config, own) - OPERATIONAL - EXTENDING)
    if others:
        raise checkpoint.Unusable(
            f"{path.name} belongs to another run (its {', '.join(others)} differ)"
        )


def _best_is_lost(run: Run) -> bool:
    """Whether best.pt is damaged; then it is put aside."""
    path = run.checkpoints / "best.pt"
    try:
        if path.exists():
            checkpoint.load(path)
    except checkpoint.Unusable as error:
        logger.warning(
            f"{error}; it is put aside, and the best of the validations to come takes its place."
        )
        _put_aside(path)
    return not path.exists()


def _compare(stored: dict[str, Any], now: dict[str, Any], allow_changed_data: bool) -> list[str]:
    """Refuse other data; say what else makes the resumed run no longer bit-exact."""
    if stored["data"] != now["data"] and not allow_changed_data:
        raise UserError(
            "The data have changed since the checkpoint was written: bring the old data back, go on "
            "with the new as allow_changed_data=true, or start a new run."
        )
    differences = runs.differences(stored, now)
    if differences:
        logger.warning(f"This run is no longer bit-exact: {', '.join(differences)}.")
    return differences


def _announce(parts: Parts, run: Run, step: int) -> None:
    count = sum(p.numel() for p in parts.parameters.values())
    train, val = parts.train.plan.size, parts.val.plan.size if parts.val else 0
    where = f" from step {step}" if step else ""
    logger.info(
        f"{run.shown}{where}: {type(parts.model).__name__} with {count:,} parameters, {train:,} "
        f"training and {val:,} validation samples, {parts.total_steps:,} steps on {parts.device} "
        f"in {parts.precision}"
    )
    for line in table(parts.optimizer):
        logger.info(f"  {line}")


def _result(loop: Loop) -> dict[str, Any]:
    p = loop.parts
    result = {
        "steps": loop.step,
        "epochs": loop.report.epoch(loop.step),
        "monitor": p.config.monitor,
        "last": loop.last,
        "best": loop.best,
        "weights_sha256": runs.weights_sha256(p.model.state_dict()),
    }
    if p.averaged is not None:
        result["ema_sha256"] = runs.weights_sha256(p.averaged.model.state_dict())
    return result


def _report(run: Run, result: dict[str, Any]) -> None:
    best = "" if result["best"] is None else f"best {result['monitor']} {number(result['best'])}, "
    logger.info(f"Look at the curves: tensorboard --logdir {run.shown}")
    logger.info(f"Finished: {best}{run.shown}, weights_sha256 {result['weights_sha256']}")
