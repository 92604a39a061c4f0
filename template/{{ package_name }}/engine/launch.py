"""From the command line to a checked config and an exit code, without importing torch.

Hydra composes and sweeps; this file turns its errors into one sentence and exit code 2.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import signals
from .config import help
from .config.compose import Schema, compose, composed, composed_alone, to_config
from .config.hydra_errors import explain, first_line
from .config.schema import Config
from .config.stored import is_longer, merge_configs, read_config
from .errors import FAILED, FINISHED, MISTAKE, STOPPED, Exit, Stopped, UserError
from .machine import distributed
from .paths import CONFIGS, ROOT
from .run.folder import Run, find_run, lock_run
from .text import say

__all__ = ["Job", "compose", "launch", "say"]


@dataclass(frozen=True)
class Job:
    """One run to do: the only one, or one of a sweep."""

    config: Config
    overrides: list[str]
    folder_name: str | None
    """Name of the new run's folder in a sweep; None takes the time."""
    run: Run | None
    """The run to go on with, locked by this process; None starts a new one."""


def launch(work: Callable[[Job], float | None]) -> int:
    """Compose, check, call `work(job)` for each job; returns the exit code.

    `work` returns the last monitored value, for a sweeper that searches.
    """
    if not distributed.is_main():
        os.chdir(ROOT)
        return _follow(work)
    signals.install_once()
    os.chdir(ROOT)
    code = _lead(work)
    if distributed.is_awaited():  # no job began, which the others wait to hear
        signals.restore()
        with contextlib.suppress(Exception):  # there may be no others; what was wrong has been said
            distributed.start(seconds=30)
            distributed.from_main(None)
            distributed.finish()
    signals.ignore()  # everything is recorded: a late signal must not change the exit code
    if code in (FINISHED, STOPPED):  # after a failure the others are not in step with this process
        distributed.from_main(None)
        distributed.finish()
    return code


def _lead(work: Callable[[Job], float | None]) -> int:
    """What the first process does: compose, plan each job and share it."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting with 1

    try:
        sys.argv[1:] = _spelled_out(sys.argv[1:])
        if help.FLAGS & set(sys.argv[1:]):
            print(help.text(composed(a for a in sys.argv[1:] if a[:1] != "-")), end="")
            return FINISHED
        import hydra
    except UserError as error:
        say(str(error))
        return error.code
    except ModuleNotFoundError as error:
        say(
            f"The package '{error.name}' is not installed: run this as `uv run python …`, or make the "
            "environment with `pip install -e .` first."
        )
        return MISTAKE
    from hydra.core.config_store import ConfigStore
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig, OmegaConf

    from .run.outcomes import Outcome, report

    ConfigStore.instance().store(name="schema", node=Schema)
    directions = {"max": "maximize", "min": "minimize"}
    OmegaConf.register_new_resolver("direction", directions.get, replace=True)
    outcomes: list[Outcome] = []
    sweep_folders: list[Path] = []

    def hydras_job(composed: DictConfig) -> float | None:
        settings = HydraConfig.get()
        # As typed: an interpolation among them may be a mistake, which is told below.
        overrides: Any = OmegaConf.to_container(settings.overrides.task, resolve=False)
        outcome = Outcome(overrides)
        if settings.mode == RunMode.MULTIRUN:
            sweep_folders[:] = [Path(settings.sweep.dir)]
            outcome.number = settings.job.num
            outcome.folder_name = f"{Path(settings.sweep.dir).name}_{settings.job.num}"
        return job(composed, outcome)

    def job(composed: DictConfig, outcome: Outcome) -> float | None:
        outcomes.append(outcome)
        value = None
        try:
            if signals.requested():
                raise Stopped("Stopped before the run began.")
            outcome.config = to_config(composed)
            plan = _plan(outcome.config, outcome.overrides, outcome.folder_name)
            if plan is not None:
                distributed.start()
                value = work(distributed.from_main(plan))
            else:
                value = outcome.result().get("last")  # a search goes on with what is finished
            outcome.code = FINISHED
        except Exit as error:
            say(str(error))
            outcome.code = error.code
        except Exception:  # a bug, in whatever code: the sweep goes on with its next job
            traceback.print_exc()
        return value

    try:
        alone = composed_alone(sys.argv[1:])
        if alone is not None:
            job(alone, Outcome(sys.argv[1:]))
        else:
            main = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
            main(hydras_job)()
    except Exit as error:
        say(str(error))
        return error.code
    except SystemExit as error:
        if outcomes and distributed.WORLD_SIZE > 1:  # a task's own: the others are not in step
            raise
        return error.code if isinstance(error.code, int) else MISTAKE if error.code else FINISHED
    except Exception as error:
        if not outcomes:
            say(explain(error, sys.argv[1:]))
            return MISTAKE
        say(f"The sweep ended early: {first_line(error)}")  # such as a search without any value
    if sweep_folders:
        report(outcomes, sweep_folders[0])
    codes = [outcome.code for outcome in outcomes]
    return STOPPED if STOPPED in codes else max(codes, default=FINISHED)


_FLAGS = {"-q": "log.level=warning", "-v": "log.level=debug"}


def _spelled_out(arguments: list[str]) -> list[str]:
    """Our flags as the overrides they stand for; Hydra has its own. Raises `UserError`."""
    levels = {a for a in arguments if a in _FLAGS or a.lstrip("+").startswith("log.level=")}
    if len(levels) > 1 and levels & _FLAGS.keys():
        raise UserError(f"{' and '.join(sorted(levels))} contradict each other; give one of them.")
    many = {"-m", "--multirun"}
    # Hydra takes overrides in a row only: `lr=0.1 -m epochs=2` or `-m -q` would be two rows of them.
    rest = [a for a in arguments if a in many]
    rest += [a for a in arguments if a not in many | _FLAGS.keys()]
    place = next((i for i, a in enumerate(rest) if "=" in a and a[0] != "-"), len(rest))
    rest[place:place] = [_FLAGS[a] for a in levels & _FLAGS.keys()]
    return rest


def _follow(work: Callable[[Job], float | None]) -> int:
    """What processes other than the first do: the jobs that it sends. It alone composes."""
    distributed.start()
    signals.install_once()
    code = FINISHED
    while (job := distributed.from_main(None)) is not None:
        try:
            work(job)
        except Stopped as error:
            code = error.code
        except Exit as error:  # the first process says the same
            return error.code
        except Exception as error:
            if "Connection" not in str(error):  # else the first process ended and said why
                traceback.print_exc()
            return FAILED
    signals.ignore()
    distributed.finish()
    return code


def _plan(config: Config, overrides: list[str], folder_name: str | None) -> Job | None:
    """The job, with the run it resumes where there is one; None where that run is finished."""
    folder = find_run(config) if config.resume is not None else None
    if folder is None:
        return Job(config, overrides, folder_name, None)
    run = lock_run(folder)
    config = merge_configs(folder, read_config(folder), config, overrides)
    manifest = run.manifest()
    if manifest["status"] == "finished" and not is_longer(folder, config):
        result = manifest["result"]
        say(f"{run.shown} is finished after {result['steps']} steps; nothing is left to do.")
        run.release()
        return None
    return Job(config, overrides, folder_name, run)
