"""A sweep (`-m`) is refused as a whole when one of its jobs cannot work."""

from __future__ import annotations

from typing import Any

from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback

from .errors import MISTAKE, Exit, UserError
from .explain import explain
from .launch import say, to_config


class CheckEveryJob(Callback):
    """A Hydra callback: before a sweep's first job, checks the config of every job."""

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        sweeper = config.hydra.sweeper
        if not sweeper._target_.endswith(".BasicSweeper"):
            return  # a search chooses its values as it goes
        overrides = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
        overrides += list(config.hydra.overrides.task)
        try:
            for batch in BasicSweeper.split_arguments(
                OverridesParser.create().parse_overrides(overrides), None
            ):
                for job in batch:
                    _check(job)
        except UserError as error:
            say(f"{error} No job was started.")
            raise SystemExit(MISTAKE) from None  # Hydra swallows other exceptions of callbacks


def _check(job: list[str]) -> None:
    try:
        to_config(compose("train", overrides=job))
    except Exception as error:
        sentence = str(error) if isinstance(error, Exit) else explain(error, job)
        raise UserError(f"In the job '{' '.join(job)}': {sentence}") from None
