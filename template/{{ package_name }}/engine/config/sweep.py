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
from .compose import DIRECTIONS, composed, register, to_config
from .hydra_errors import explain
from .hydra_internals import jobs_of
from .monitor import refuse_doubtful_mode
from .schema import Config


def hydras_main(
    job: Callable[[Any, list[str], int, str | None], float | None], check: Callable[[Config], None]
) -> None:
    """Let Hydra read the command line, and call `job(composed, overrides, number, folder_name)`.

    folder_name: of the new run in a sweep; None outside a sweep. check: refuses a job's config if it
    cannot work; called for every job before the first one. Raises what Hydra raises.
    """

    def task(composed: Any) -> float | None:
        settings = HydraConfig.get()
        # As typed: an interpolation may be a mistake, which `to_config` tells.
        overrides: Any = OmegaConf.to_container(settings.overrides.task, resolve=False)
        if settings.mode != RunMode.MULTIRUN:
            return job(composed, overrides, 0, None)
        number = settings.job.num
        name = f"{os.path.basename(settings.sweep.dir)}_{number}"
        value = job(composed, overrides, number, name)
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
        overrides = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
        overrides += config.hydra.overrides.task
        try:
            _check_all(sweeper, overrides, type(self).check)
        except Exception as error:
            sentence = str(error) if isinstance(error, UserError) else explain(error, overrides)
            say(f"{sentence} No job was started.")
            raise SystemExit(MISTAKE) from None  # Hydra swallows other exceptions of callbacks


def _check_all(sweeper: Any, overrides: list[str], check: Callable[[Config], None]) -> None:
    is_grid = sweeper._target_.endswith(".BasicSweeper")
    direction = getattr(sweeper.get("direction"), "name", sweeper.get("direction"))
    jobs = jobs_of(overrides, is_grid)
    if jobs == []:
        raise UserError("The sweep has no jobs: one of its globs matches nothing.")
    name, configs = "", dict[str, Config]()
    try:
        for job in jobs or []:
            name = " ".join(job)
            configs[name] = config = to_config(composed(job))
            if config.resume is None:
                refuse_doubtful_mode(config, job)
            wanted = DIRECTIONS[config.monitor_mode]
            if not is_grid and isinstance(direction, str) and direction != wanted:
                wrong = f"hydra.sweeper.direction={direction} does not fit monitor_mode"
                raise UserError(f"{wrong}={config.monitor_mode}. Set it to {wanted}.")
        for name in configs:
            check(configs[name])  # imports torch: so it comes last
    except UserError as error:
        raise UserError(f"In the job '{name}': {error}") from None
