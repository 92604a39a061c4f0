"""Sweeps (`-m`, `sweep=`): refused as a whole when a job cannot work; a table at the end."""

from __future__ import annotations

import itertools
from typing import Any

from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback

from ..errors import MISTAKE, Exit, UserError
from ..text import say
from .compose import to_config
from .hydra_errors import explain
from .schema import Config


class CheckEveryJob(Callback):
    """A Hydra callback: before a sweep's first job, checks the config of every job."""

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        sweeper = config.hydra.sweeper
        overrides = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
        overrides += list(config.hydra.overrides.task)
        try:
            loader = GlobalHydra.instance().config_loader()
            parsed = OverridesParser.create(loader).parse_overrides(overrides)
            if not sweeper._target_.endswith(".BasicSweeper"):
                # A search chooses its values as it goes; what it does not choose is known.
                checked = _check([o.input_line or "" for o in parsed if not o.is_sweep_override()])
                _check_direction(sweeper, checked)
                _hush(sweeper._target_)
                return
            jobs = list(itertools.chain(*BasicSweeper.split_arguments(parsed, None)))
            if not jobs:
                raise UserError("The sweep has no jobs: one of its globs matches nothing.")
            for job in jobs:
                _check(job)
        except UserError as error:
            say(f"{error} No job was started.")
            raise SystemExit(MISTAKE) from None  # Hydra swallows other exceptions of callbacks


def _check(job: list[str]) -> Config:
    try:
        return to_config(compose("train", overrides=job))
    except Exception as error:
        sentence = str(error) if isinstance(error, Exit) else explain(error, job)
        raise UserError(f"In the job '{' '.join(job)}': {sentence}") from None


def _check_direction(sweeper: Any, config: Config) -> None:
    direction = getattr(sweeper.get("direction"), "name", sweeper.get("direction"))
    wanted = {"max": "maximize", "min": "minimize"}[config.monitor_mode]
    if isinstance(direction, str) and direction != wanted:
        raise UserError(
            f"hydra.sweeper.direction={direction} does not fit monitor_mode={config.monitor_mode}; "
            f"set it to {wanted}."
        )


def _hush(target: str) -> None:
    """Without this Optuna reports a name that it makes up for the search."""
    if "optuna" in target:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
