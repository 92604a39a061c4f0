"""One run from its job to its result: build, check, make or reopen the folder, train, report."""

import contextlib
import logging
import time
from typing import Any

from .build.first_batch import check_one_batch
from .build.optimizer import group_table
from .build.parts import Parts
from .config.stored import read_config
from .errors import Exit, Stopped, one_line
from .failures import recorded, writing
from .launch import Job
from .log.messages import close_log, open_file, open_log
from .loop import Loop
from .machine import distributed
from .run.facts import describe_start, timestamp, weights_sha256
from .run.folder import Run, create_run, refuse_other_groups
from .run.resume import find_checkpoint, record_resumed
from .setup import build_parts
from .text import logger, number


def train(job: Job, loop_type: type[Loop] = Loop) -> float | None:
    """Do a job. Return the last monitored value. Raises `Exit` with the exit code and the reason."""
    started = time.monotonic()
    open_log(job.config.log.level)
    run = job.run
    # A checkpoint holds all weights. The file of `init_from` may be gone.
    parts = build_parts(job.config, initialise=run is None or not any(run.checkpoints.glob("*.pt")))
    check_one_batch(parts)
    if run is None and distributed.is_main():
        manifest = {**describe_start(job.overrides), "fingerprint": parts.fingerprint}
        run = create_run(job.config, manifest, job.folder_name)
    shared = distributed.from_main(run)
    run = run or shared
    try:
        with writing(run):
            open_file(run.folder)
            state = None if job.run is None else restore(parts, run)
        with recorded(run, job.config), writing(run):
            loop = loop_type(parts, run, started, state)
            _announce(parts, run, loop.step)
            loop.fit()
            result = _result(loop)
            run.update_manifest(status="finished", ended=timestamp(), result=result)
        if job.config.log.curves and distributed.is_main():
            _draw_curves(run, result)
        _report(run, result)
        return loop.progress.last
    except Exit as error:  # launch.py says the sentence on the terminal
        level = logging.INFO if isinstance(error, Stopped) else logging.ERROR
        with contextlib.suppress(OSError):  # a full disk must not hide it
            logger.log(level, str(error), extra={"file_only": True})
        raise
    finally:
        close_log()
        run.release()


def restore(parts: Parts, run: Run) -> dict[str, Any] | None:
    """Load the newest usable checkpoint into `parts` and return it; None if there is none yet.

    Raises `UserError` if data or shapes do not fit, `Failed` if no checkpoint can be used.
    """
    config, stored = parts.config, read_config(run.folder)
    state = find_checkpoint(run, stored)
    if state is not None:
        refuse_other_groups(run.folder, {group["name"] for group in parts.optimizer.param_groups})
        parts.load_state_dict(state)
    can_be_extended = parts.scheduler.can_be_extended
    record_resumed(run, config, stored, state, parts.fingerprint, can_be_extended)
    return state


def _announce(parts: Parts, run: Run, step: int) -> None:
    """Log what is trained on what, and the table of parameter groups."""
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
    """Return the `result` of the manifest."""
    p = loop.parts
    result = {
        "steps": loop.step,
        "epochs": p.train.plan.epoch(loop.step),
        "monitor": p.config.monitor,
        "last": loop.progress.last,
        "best": loop.progress.best,
        "weights_sha256": weights_sha256(p.model.state_dict()),
    }
    if p.averaged is not None:
        result["ema_sha256"] = weights_sha256(p.averaged.model.state_dict())
    return result


def _draw_curves(run: Run, result: dict[str, Any]) -> None:
    """Draw `curves.png`. A failure here is a warning: the run itself is finished."""
    try:
        from .tools.curves import draw_curves

        draw_curves(run.folder, result["monitor"], result["best"])
    except Exception as error:  # a missing package, a full disk, no fonts …
        logger.warning(f"No curves.png was drawn: {one_line(error)}")


def _report(run: Run, result: dict[str, Any]) -> None:
    """Log where the curves are, the best value and the hash of the weights."""
    best = "" if result["best"] is None else f"best {result['monitor']} {number(result['best'])}, "
    curves = [f"{run.shown}/curves.png"] if (run.folder / "curves.png").exists() else []
    if (run.folder / "tensorboard").exists():
        curves.append(f"tensorboard --logdir {run.shown}")
    if curves:
        logger.info(f"Look at the curves: {' or '.join(curves)}")
    logger.info(f"Finished: {best}{run.shown}, weights_sha256 {result['weights_sha256']}")
