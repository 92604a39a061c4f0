"""From the command line to a checked config and an exit code, without importing torch.

Hydra composes and sweeps; this file turns its errors into one sentence and exit code 2.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import distributed, runs, signals
from .config import Config, from_dict
from .errors import FAILED, FINISHED, MISTAKE, STOPPED, Exit, Stopped, UserError
from .explain import explain, first_line
from .paths import CONFIGS, ROOT
from .runs import Run

_HELP = """Train a model. Override any config key as KEY=VALUE:

  python train.py lr=0.001 epochs=5
  python train.py optimizer=sgd scheduler=step
  python train.py -m lr=0.1,0.01            one run for each value
  python train.py sweep=optuna              search for good values
  python train.py dry_run=true              everything up to the first step
  python train.py resume=auto               go on where the last run stopped
  python train.py -q                        say warnings and errors only
  python train.py -v                        debug messages and tracebacks, too

Choices, one file each in configs/:

$APP_CONFIG_GROUPS
Keys and their defaults:

$CONFIG
$FLAGS_HELP
"""


@dataclass
class Schema(Config):
    """`Config` plus Hydra's own settings; `defaults: [schema]` in train.yaml brings it in."""

    defaults: list[Any] = field(
        default_factory=lambda: [
            "_self_",
            {"sweep": None},  # here, so that projects with an older train.yaml have it too
            {"override hydra/job_logging": "none"},
            {"override hydra/hydra_logging": "none"},
        ]
    )
    hydra: Any = field(
        default_factory=lambda: {
            "run": {"dir": "."},
            "sweep": {
                "dir": "runs/${name}/.sweeps/${now:%Y-%m-%d_%H-%M-%S}",
                "subdir": ".",
            },
            "output_subdir": None,
            "job": {"chdir": False},
            "help": {"template": _HELP},
            "callbacks": {"check": {"_target_": f"{__package__}.sweep.CheckEveryJob"}},
        }
    )


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
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting with 1

    try:
        sys.argv[1:] = _spelled_out(sys.argv[1:])
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

    from .sweep import Outcome, report

    ConfigStore.instance().store(name="schema", node=Schema)
    directions = {"max": "maximize", "min": "minimize"}
    OmegaConf.register_new_resolver("direction", directions.get, replace=True)
    outcomes: list[Outcome] = []
    sweep_folders: list[Path] = []

    def job(composed: DictConfig) -> float | None:
        settings = HydraConfig.get()
        # As typed: an interpolation among them may be a mistake, which is told below.
        overrides: Any = OmegaConf.to_container(settings.overrides.task, resolve=False)
        outcome = Outcome(overrides)
        outcomes.append(outcome)
        if settings.mode == RunMode.MULTIRUN:
            sweep_folders[:] = [Path(settings.sweep.dir)]
            outcome.number = settings.job.num
            outcome.folder_name = f"{Path(settings.sweep.dir).name}_{settings.job.num}"
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
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")(job)()
    except Exit as error:
        say(str(error))
        return error.code
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else MISTAKE if error.code else FINISHED
    except Exception as error:
        if not outcomes:
            say(explain(error, sys.argv[1:]))
            return MISTAKE
        say(f"The sweep ended early: {first_line(error)}")  # such as a search without any value
    if sweep_folders:
        report(outcomes, sweep_folders[0])
    codes = [outcome.code for outcome in outcomes]
    code = STOPPED if STOPPED in codes else max(codes, default=FINISHED)
    signals.ignore()  # everything is recorded: a late signal must not change the exit code
    if code in (FINISHED, STOPPED):  # after a failure the others are not in step with this process
        distributed.from_main(None)
        distributed.finish()
    return code


_FLAGS = {"-q": "log.level=warning", "-v": "log.level=debug"}


def _spelled_out(arguments: list[str]) -> list[str]:
    """Our flags as the overrides they stand for; Hydra has its own. Raises `UserError`."""
    levels = {a for a in arguments if a in _FLAGS or a.lstrip("+").startswith("log.level=")}
    if len(levels) > 1 and levels & _FLAGS.keys():
        raise UserError(f"{' and '.join(sorted(levels))} contradict each other; give one of them.")
    rest = [a for a in arguments if a not in _FLAGS]
    # Hydra takes overrides in a row only: `lr=0.1 -m -q` would become two rows of them.
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
    folder = runs.find(config) if config.resume is not None else None
    if folder is None:
        return Job(config, overrides, folder_name, None)
    run = runs.lock(folder)
    config = runs.merge(folder, runs.read_config(folder), config, overrides)
    manifest = run.manifest()
    if manifest["status"] == "finished" and not runs.is_longer(folder, config):
        result = manifest["result"]
        say(f"{run.shown} is finished after {result['steps']} steps; nothing is left to do.")
        run.release()
        return None
    return Job(config, overrides, folder_name, run)


def compose(*overrides: str) -> Config:
    """The checked config of `python train.py OVERRIDES`, for tests and notebooks.

    Raises `UserError`.
    """
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    ConfigStore.instance().store(name="schema", node=Schema)
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        try:
            composed = hydra.compose("train", overrides=list(overrides))
        except Exception as error:
            raise UserError(explain(error, overrides)) from error
    return to_config(composed)


def say(sentence: str) -> None:
    """Tell the person at the terminal; escapes what would not print, but for the lines of a table,
    which begin with two spaces."""
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in sentence)
    print(escaped.replace("\\n  ", "\n  "), file=sys.stderr, flush=True)


def to_config(composed: Any) -> Config:
    """The checked plain `Config` of a composed DictConfig. Raises `UserError`."""
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise UserError(f"{key} has no value yet: give it one as {key}=VALUE.") from None
    except OmegaConfBaseException as error:
        raise UserError(first_line(error)) from None
    assert isinstance(values, dict)
    for key in ("hydra", "defaults"):
        values.pop(key, None)
    plain = {str(key): value for key, value in values.items()}
    missing = [key for key in Config.__dataclass_fields__ if key not in plain]
    if missing:
        raise UserError(f"The config key '{missing[0]}' cannot be removed; give it a value.")
    return from_dict(plain)
