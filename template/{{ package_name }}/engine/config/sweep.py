"""Hydra's own main, for sweeps (`-m`, `sweep=`). Every job is checked before the first starts."""

import math
import os
from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import OmegaConf

from ..errors import MISTAKE, UserError
from ..paths import CONFIGS
from ..text import say
from .check import refuse_doubtful_mode
from .compose import DIRECTIONS, composed, register, to_config
from .hints import explain
from .hydra_internals import jobs_of
from .schema import Config


def hydras_main(job: Callable[..., float | None], check: Callable[[Config], None]) -> None:
    """Let Hydra read the command line, and call `job(composed, overrides, number, folder_name)`.

    Only a job of a sweep has a number and the name of its run folder. check: called with the config of
    each job before the first one begins; raises `UserError`. Raises what Hydra raises.
    """

    def task(composed: Any) -> float | None:
        settings = HydraConfig.get()
        # As typed: an interpolation may be a mistake, which `to_config` tells.
        place: list[Any] = [OmegaConf.to_container(settings.overrides.task, resolve=False)]
        if settings.mode == RunMode.MULTIRUN:
            number = settings.job.num
            place += [number, f"{os.path.basename(settings.sweep.dir)}_{number}"]
        value = job(composed, *place)
        return value if value is not None and math.isfinite(value) else None  # then it is no trial

    register()
    CheckEveryJob.check = staticmethod(check)  # Hydra makes the object
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting with 1
    hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")(task)()


class CheckEveryJob(Callback):
    """A Hydra callback that refuses a whole sweep if one of its jobs cannot work."""

    check: Callable[[Config], None]

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
        except Exception as error:
            say(f"{where}{explain(error, overrides)} No job was started.")
            raise SystemExit(MISTAKE) from None  # Hydra swallows other exceptions of callbacks
