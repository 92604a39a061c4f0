"""One run from its job to its result: build, check, make or reopen the folder, train, report."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from . import signals
from .build.first_batch import check_one_batch, too_large
from .build.optimizer import group_table
from .build.parts import Parts
from .config.schema import Config
from .config.stored import read_config
from .errors import (
    NO_SPACE,
    Exit,
    Failed,
    NotFiniteError,
    SaveError,
    Stopped,
    UserError,
    one_line,
    own_words,
)
from .launch import Job
from .log.messages import close_log, open_file, open_log
from .loop import Loop
from .machine import distributed
from .run.disk import not_written
from .run.facts import describe_start, timestamp, weights_sha256
from .run.folder import Run, create_run
from .run.resume import find_checkpoint, record_resumed
from .setup import build_parts
from .text import logger, number


def train(job: Job, loop_type: type[Loop] = Loop) -> float | None:
    """Do the job; returns the last monitored value. Raises `Exit` with the exit code's reason."""
    started = time.monotonic()
    open_log(job.config.log.level)
    run = job.run
    # A checkpoint holds all weights: what they were initialised from may be gone.
    parts = build_parts(job.config, initialise=run is None or not run.has_checkpoints())
    check_one_batch(parts)
    if run is None and distributed.is_main():
        manifest = {**describe_start(job.overrides), "fingerprint": parts.fingerprint}
        run = create_run(job.config, manifest, job.folder_name)
    shared = distributed.from_main(run)
    run = run or shared
    try:
        with _writing(run):
            open_file(run.folder)
            loop = loop_type(parts, run, started)
            if job.run is not None:
                restore(loop, run)
        with _recorded(run, job.config), _writing(run):
            _announce(parts, run, loop.step)
            loop.fit()
            result = _result(loop)
            run.update_manifest(status="finished", ended=timestamp(), result=result)
        if job.config.log.curves and distributed.is_main():
            _draw(run, result)
        _report(run, result)
        return loop.progress.last
    except Exit as error:  # the person at the terminal is told at the command's end
        level = logging.INFO if isinstance(error, Stopped) else logging.ERROR
        with contextlib.suppress(OSError):  # nor must a full disk hide it
            logger.log(level, str(error), extra={"file_only": True})
        raise
    finally:
        close_log()
        run.release()


def restore(loop: Loop, run: Run) -> None:
    """Load the newest checkpoint that can be used; without any, the run starts at its first step.

    Raises `UserError` if data or shapes do not fit, `Failed` if no checkpoint can be used.
    """
    p, stored = loop.parts, read_config(run.folder)
    state = find_checkpoint(run, stored)
    if state is not None:
        loop.load_state_dict(state)
    can_be_extended = p.scheduler.can_be_extended
    record_resumed(run, loop.config, stored, state, p.fingerprint, can_be_extended)


@contextlib.contextmanager
def _writing(run: Run) -> Iterator[None]:
    """Turns what keeps the run's files from being written into `SaveError`."""
    try:
        yield
    except OSError as error:
        is_own = Path(str(error.filename)).is_relative_to(run.folder)
        if not is_own and error.errno not in (*NO_SPACE, errno.EROFS):
            raise
        raise not_written(error.filename or run.shown, error) from error


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
        if isinstance(error, Stopped | SaveError):
            raise type(error)(f"{error} {run.resume_hint}") from error
        raise
    except torch.OutOfMemoryError as error:
        _close(run, "failed")
        raise Failed(f"{too_large(config)} {run.resume_hint}") from error
    except Exception as error:
        if "DataLoader worker" in str(error) and signals.requested():
            _close(run, "stopped")
            raise Stopped(
                f"Stopped by {signals.requested()} with its loader workers, without saving. "
                f"{run.resume_hint}"
            ) from None
        _close(run, "failed")
        if "DataLoader worker" in str(error) and "exited unexpectedly" in str(error):
            raise Failed(
                "A loader worker was killed, most likely because memory or shared memory (/dev/shm) "
                f"ran out: lower workers. {run.resume_hint}"
            ) from error
        operation = re.search(r"(\S+) does not have a deterministic implementation", str(error))
        with contextlib.suppress(OSError):
            logger.exception(f"The run failed: {error}", extra={"file_only": operation is not None})
        if operation is not None:
            raise Failed(
                f"{operation[1]} cannot be computed deterministically on this device: compute "
                "without it, or give up runs that repeat and set deterministic=warn. "
                f"{run.shown}/train.log says where it is."
            ) from error
        raise Failed(f"The run failed; its folder is {run.shown}.") from error


def _close(run: Run, status: str) -> None:
    with contextlib.suppress(OSError):  # a full disk must not hide why the run ended
        run.update_manifest(status=status, ended=timestamp())


def _announce(parts: Parts, run: Run, step: int) -> None:
    count = sum(p.numel() for p in parts.parameters.values())
    train, val = parts.train.plan.size, parts.val.plan.size if parts.val else 0
    where = f" from step {step}" if step else ""
    logger.info(
        f"{run.shown}{where}: {type(parts.model).__name__} with {count:,} parameters, {train:,} "
        f"training and {val:,} validation samples, {parts.total_steps:,} steps on {parts.device} "
        f"in {parts.precision}"
    )
    for line in group_table(parts.optimizer):
        logger.info(f"  {line}")


def _result(loop: Loop) -> dict[str, Any]:
    p = loop.parts
    result = {
        "steps": loop.step,
        "epochs": loop.report.epoch(loop.step),
        "monitor": p.config.monitor,
        "last": loop.progress.last,
        "best": loop.progress.best,
        "weights_sha256": weights_sha256(p.model.state_dict()),
    }
    if p.averaged is not None:
        result["ema_sha256"] = weights_sha256(p.averaged.model.state_dict())
    return result


def _draw(run: Run, result: dict[str, Any]) -> None:
    """`curves.png`, of which no failure can be the run's."""
    try:
        from .tools.curves import draw_curves

        draw_curves(run.folder, result["monitor"], result["best"])
    except Exception as error:  # no package, no space, no fonts, values nobody thought of
        logger.warning(f"No curves.png was drawn: {one_line(error)}")


def _report(run: Run, result: dict[str, Any]) -> None:
    best = "" if result["best"] is None else f"best {result['monitor']} {number(result['best'])}, "
    curves = [f"{run.shown}/curves.png"] if (run.folder / "curves.png").exists() else []
    if (run.folder / "tensorboard").exists():
        curves.append(f"tensorboard --logdir {run.shown}")
    if curves:
        logger.info(f"Look at the curves: {' or '.join(curves)}")
    logger.info(f"Finished: {best}{run.shown}, weights_sha256 {result['weights_sha256']}")
