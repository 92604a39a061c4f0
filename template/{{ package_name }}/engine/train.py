"""One run from its job to its result: build, check, make or reopen the folder, train, report."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from . import checkpoint, distributed, runs, signals
from .config import EXTENDING
from .errors import Exit, NotFiniteError, SaveError, Stopped, UserError, own_words
from .launch import Job
from .log import close_log, logger, number, open_log
from .loop import Loop
from .optim import table
from .runs import Run
from .setup import Parts, build_parts, check_one_batch


class Failed(Exit):
    """The run failed for a reason that one sentence can tell."""


def train(job: Job) -> float | None:
    """Do the job; returns the last monitored value. Raises `Exit` with the exit code's reason."""
    started = time.monotonic()
    parts = build_parts(job.config)
    check_one_batch(parts)
    run = job.run
    if run is None and distributed.is_main():
        manifest = {**runs.describe(job.overrides), "fingerprint": parts.fingerprint}
        run = runs.create(job.config, manifest, job.folder_name)
    shared = distributed.from_main(run)
    run = run or shared
    try:
        open_log(run.folder, job.config.log.level)
        loop = Loop(parts, run, started)
        if job.run is not None:
            _restore(loop, run)
        with _recorded(run):
            _announce(parts, run, loop.step)
            loop.fit()
            result = _result(loop)
            run.update_manifest(
                status="finished", ended=datetime.now().astimezone().isoformat(), result=result
            )
        _report(run, result)
        return loop.last
    finally:
        close_log()
        run.release()


@contextlib.contextmanager
def _recorded(run: Run) -> Iterator[None]:
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
            f"The GPU's memory is too small for this batch_size (peak {peak:.1f} GiB): lower "
            "batch_size, or raise accumulate to keep it."
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
        run.update_manifest(status=status, ended=datetime.now().astimezone().isoformat())


def _restore(loop: Loop, run: Run) -> None:
    """Load the newest whole checkpoint; without any, the run starts at its first step.

    Raises `UserError` where data or shapes do not fit, `Failed` where no checkpoint is whole.
    """
    path, found = distributed.from_main(_newest_whole(run) if distributed.is_main() else None)
    if path is not None:
        state = checkpoint.load(path)
        loop.load_state_dict(state)
        _compare(state["fingerprint"], loop.parts.fingerprint)
    elif found:
        raise Failed(
            f"No checkpoint in {run.shown}/checkpoints can be read; restore one from a backup, or "
            "start a new run."
        )
    else:
        logger.info(f"{run.shown} has no checkpoint yet: it starts at its first step.")
    stored = runs.read_config(run.folder)
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
    run.update_manifest(status="running", fingerprint=loop.parts.fingerprint)


def _newest_whole(run: Run) -> tuple[Path | None, bool]:
    """The newest checkpoint that can be read, or None; and whether there was any."""
    folder = run.checkpoints
    checkpoint.sweep(folder)
    paths = checkpoint.newest_first(folder)
    if (folder / "best.pt").exists():
        paths.append(folder / "best.pt")
    for path in paths:
        try:
            checkpoint.load(path)
            return path, True
        except checkpoint.Damaged as error:
            logger.warning(f"{error}; it is put aside and the checkpoint before it is used.")
            path.rename(path.with_name(f"{path.name}.damaged"))
        except checkpoint.Unusable as error:
            logger.warning(f"{error}; the checkpoint before it is used.")
        except OSError as error:
            raise Failed(f"The checkpoint {path} cannot be read: {error}.") from error
    return None, bool(paths) or any(folder.glob("*.damaged"))


def _compare(stored: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse other data; say what else makes the resumed run no longer bit-exact."""
    if stored["data"] != now["data"]:
        raise UserError(
            "The data have changed since the checkpoint was written; bring the old data back, or "
            "start a new run from it."
        )
    differences = []
    for key, value in stored.items():
        if key == "versions":
            differences += [
                f"{name} {v} → {now['versions'].get(name)}"
                for name, v in value.items()
                if v != now["versions"].get(name)
            ]
        elif value != now[key]:
            differences.append(f"{key} {value} → {now[key]}")
    if differences:
        logger.warning(f"This run is no longer bit-exact: {', '.join(differences)}.")


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
