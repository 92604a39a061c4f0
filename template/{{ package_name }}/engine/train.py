"""One run from its job to its result: build, check, make or reopen the folder, train, report."""

import contextlib
import logging
import time
from glob import glob
from typing import Any

from .build.first_batch import check_one_batch
from .build.parts import Parts
from .config.stored import changed_keys, read_config
from .errors import Exit, Stopped
from .failures import recorded, writing
from .launch import Job
from .log.announce import announce, announce_end, save_curves
from .log.console import close_log, open_file, open_log
from .loop import Loop
from .machine import distributed
from .machine.sharding import is_sharded
from .run.facts import describe_start, timestamp, weights_sha256
from .run.folder import Run, create_run, refuse_other_groups
from .run.resume import find_checkpoint, record_resumed, refuse_changes
from .setup import build_parts
from .text import logger


def train(job: Job, loop_type: type[Loop] = Loop) -> float | None:
    """Do a job. Return the last monitored value. Raises `Exit` with the exit code and the reason."""
    started, is_new = time.monotonic(), job.run is None
    open_log(job.config.log.level)
    # A checkpoint holds all weights. The file of `init_from` may be gone.
    initialise = job.run is None or not glob("*", root_dir=job.run.checkpoints)
    parts = build_parts(job.config, initialise=initialise)
    check_one_batch(parts, is_new=is_new)
    if is_new and distributed.is_main():
        manifest = {**describe_start(job.overrides), "fingerprint": parts.fingerprint}
        job.run = create_run(job.config, manifest, job.folder_name, parts.data_sums)
    run: Run = distributed.from_main(job.run)
    try:
        with writing(run):
            open_file(run.folder)
            state = None if is_new else restore(parts, run)
            with recorded(run, job.config), writing(run):
                loop = loop_type(parts, run, started, state)
                announce(parts, run, loop.step)
                loop.fit()
                result = _result(loop)
                run.update_manifest(status="finished", ended=timestamp(), result=result)
            if job.config.log.curves and distributed.is_main():
                save_curves(run, result)
            announce_end(run, result)
            close_log()
        return loop.progress.last
    except Exit as error:  # launch.py says the sentence on the terminal
        level = logging.INFO if isinstance(error, Stopped) else logging.ERROR
        with contextlib.suppress(OSError):  # a full disk must not hide it
            logger.log(level, str(error), extra={"file_only": True})
        raise
    finally:
        with contextlib.suppress(OSError):
            close_log()
        run.release()


def restore(parts: Parts, run: Run) -> dict[str, Any] | None:
    """Load the newest usable checkpoint into `parts` and return it; None if there is none yet.

    Raises `UserError` if data or shapes do not fit, `Failed` if no checkpoint can be used.
    """
    config, stored = parts.config, read_config(run.folder)
    changed = changed_keys(stored, config)
    refuse_changes(changed, parts.scheduler.can_be_extended, parts.validation_reader)
    state = find_checkpoint(run, stored, is_sharded(config))
    if state is not None:
        refuse_other_groups(run.folder, {group["name"] for group in parts.optimizer.param_groups})
        parts.load_state_dict(state)
    record_resumed(run, config, stored, state, parts.fingerprint)
    return state


def _result(loop: Loop) -> dict[str, Any]:
    """Return the `result` of the manifest."""
    p = loop.parts
    result = {
        "steps": loop.step,
        "epochs": p.train.plan.epoch(loop.step),
        "monitor": p.config.monitor,
        "last": loop.progress.last,
        "best": loop.progress.best,
        "stopped_early": loop.progress.out_of_patience if loop.step < p.total_steps else None,
        "weights_sha256": weights_sha256(p.model.state_dict()),
    }
    if p.averaged is not None:
        result["ema_sha256"] = weights_sha256(p.averaged.model.state_dict())
    return result
