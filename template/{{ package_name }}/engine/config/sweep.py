"""Hydra's own main, for sweeps (`-m`, `sweep=`). Every job is checked before the first starts."""

import os
import sys
from collections.abc import Callable
from typing import Any

import hydra
from hydra.experimental.callback import Callback

from ..errors import MISTAKE, UserError
from ..paths import CONFIGS
from ..text import say
from .check import refuse_doubtful_mode
from .compose import DIRECTIONS, composed, register, to_config
from .hints import explain
from .hydra_internals import do_without_lost_jobs, jobs_of
from .schema import Config


def hydras_main(jobs: Any, check: Callable[[Config], None]) -> None:
    """Let Hydra read the command line and call `jobs`, a `Jobs` of run/jobs.py, for each job.

    check: called with the config of each job before the first one begins; raises `UserError`. Raises
    what Hydra raises.
    """
    register(sys.argv)
    CheckEveryJob.check, CheckEveryJob.jobs = staticmethod(check), jobs  # Hydra makes it
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting with 1
    main = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
    try:
        main(jobs)()
    finally:
        jobs.collect()


class CheckEveryJob(Callback):
    """Refuses a whole sweep if one of its jobs cannot work. Lets go of each finished job's config."""

    check: Callable[[Config], None]
    jobs: Any

    def on_job_end(self, config: Any, job_return: Any, **_: Any) -> None:
        job_return.cfg = job_return.hydra_cfg = None  # 0.2 MiB, kept until the sweep ends

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        sweeper = config.hydra.sweeper
        is_grid = sweeper._target_.endswith(".BasicSweeper")
        direction = getattr(sweeper.get("direction"), "name", sweeper.get("direction"))
        overrides = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
        overrides += config.hydra.overrides.task
        where, configs = "", dict[str, Config]()
        try:
            jobs = jobs_of(overrides, is_grid)
            if jobs == []:
                raise UserError("The sweep has no jobs: one of its globs matches nothing.")
            for job in jobs or []:
                where = f"In the job '{' '.join(job)}': "
                configs[where] = own = to_config(composed(job))
                if own.resume is None:
                    refuse_doubtful_mode(own, job)
                wanted = DIRECTIONS[own.monitor_mode]
                if not is_grid and isinstance(direction, str) and direction != wanted:
                    wrong = f"hydra.sweeper.direction={direction} does not fit monitor_mode"
                    raise UserError(f"{wrong}={own.monitor_mode}. Set it to {wanted}.")
            for where in configs:
                type(self).check(configs[where])  # imports torch: so it comes last
            where = ""
            if not config.hydra.launcher._target_.endswith(".BasicLauncher"):
                self.jobs.begin(config.hydra.sweep.dir, (jobs or []) if is_grid else [])
                do_without_lost_jobs()
        except Exception as error:
            say(f"{where}{explain(error, overrides)} No job was started.")
            raise SystemExit(MISTAKE) from None  # Hydra swallows other exceptions of callbacks
