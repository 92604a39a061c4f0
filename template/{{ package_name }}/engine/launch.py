"""From the command line to a checked config and an exit code, without importing torch.

The main process leads: it reads the command line, composes the config, and calls `work(job)` for
each job. The other processes of a run follow: they receive the same jobs. Every `Exit` becomes a
sentence and its exit code (errors.py).
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from . import signals
from .config import help
from .config.check import refuse_doubtful_mode
from .config.compose import compose, read_flags, single_run, to_config
from .config.hints import explain, first_line
from .config.schema import EXTENDING, Config
from .config.stored import changed_keys, follow_length, merge_configs, read_config
from .errors import FAILED, FINISHED, MISTAKE, STOPPED, Exit, Stopped, UserError
from .machine import distributed
from .paths import ROOT
from .run.find import find_run
from .run.folder import Run, lock_run
from .run.jobs import Jobs
from .run.outcomes import Outcome, report_jobs
from .text import say

__all__ = ["Job", "compose", "launch", "say"]


@dataclass
class Job:
    """One run to do: the only one, or one of a sweep."""

    config: Config
    overrides: list[str]
    folder_name: str | None  # of a new run in a sweep; None: the time
    run: Run | None  # to go on with, locked by this process; None: a new run, which `train` makes


Work = Callable[[Job], float | None]  # it returns the last monitored value, for a search


def launch(work: Work, alone: bool = False) -> int:
    """Compose and check the config, call `work(job)` for each job, return the exit code.

    alone: always in one process.
    """
    os.chdir(ROOT)
    work = distributed.explained()(work)
    try:
        distributed.stay_alone() if alone else distributed.expect_others()
    except UserError as error:
        say(str(error))
        return error.code
    if not distributed.is_main():
        return _follow(work)
    signals.install_once()
    code = _lead(work)
    if distributed.is_awaited():  # no job began: tell the other processes
        signals.end_at_once()
        with contextlib.suppress(Exception):  # there may be none; the mistake is told already
            distributed.start(seconds=30)
            distributed.finish()
    signals.ignore()  # everything is recorded: a late signal must not change the exit code
    if code in (FINISHED, STOPPED):  # after a failure the other processes wait somewhere else
        distributed.finish()
    return code


def _lead(work: Work) -> int:
    """Read the command line, compose, and do each job. Return the exit code."""
    outcomes: list[Outcome] = []

    def job(composed: Any, *place: Any) -> float | None:
        outcomes.append(Outcome(*place))
        return _do(work, composed, outcomes[-1], [o.mistake for o in outcomes])

    try:
        sys.argv[1:] = arguments = read_flags(sys.argv[1:])
        if {"--help", "-h"} & set(arguments):
            print(help.text(arguments), end="", flush=True)
        elif (config := single_run(arguments)) is not None:
            job(config, arguments)
        else:  # a sweep, or what a flag such as --cfg asks for
            from .config.sweep import hydras_main

            hydras_main(Jobs(outcomes, job), _check_sections)
    except BrokenPipeError:  # `--help | head` has closed stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except SystemExit as error:  # of your code, of a flag, or of a sweep with a mistake
        if outcomes:
            raise
        return MISTAKE if error.code else FINISHED
    except Exception as error:
        if not outcomes:
            say(explain(error, sys.argv[1:]))
            return MISTAKE
        say(f"The sweep ended early: {first_line(error)}")  # such as a search without any value
    if any(o.folder_name for o in outcomes) and "hydra.mode=RUN" not in sys.argv:  # a sweep
        report_jobs(outcomes)
    codes = [outcome.code for outcome in outcomes]
    return STOPPED if STOPPED in codes else max(codes, default=FINISHED)


def _check_sections(config: Config) -> None:
    from .build.target import check_sections  # here: it imports torch

    check_sections(config)


def _do(work: Work, composed: Any, outcome: Outcome, told: Collection[str]) -> float | None:
    """Do one job, and write into `outcome` how it ended. Return its last monitored value.

    told: mistakes of earlier jobs, which `report_jobs` counts.
    """
    job = None
    try:
        if signals.requested():
            raise Stopped("Stopped before the run began.")
        outcome.config = to_config(composed)
        job = _plan(outcome, outcome.config)
        if job is None:
            value = outcome.result().get("last")
        else:
            distributed.start()
            value = work(distributed.from_main(job))
        outcome.code = FINISHED
        return value
    except Exit as error:
        outcome.code, sentence = error.code, str(error)
        if sentence not in told:
            say(sentence)
        outcome.mistake = sentence if error.code == MISTAKE else ""
    except Exception:  # a bug in any code: a sweep goes on with its next job
        traceback.print_exc()
    finally:
        if job is not None and job.run is not None:
            outcome.run = job.run.folder
    return None


def _plan(outcome: Outcome, config: Config) -> Job | None:
    """Return the job, with the run that it resumes. None: that run is finished already."""
    outcome.run = folder = find_run(config) if config.resume is not None else None
    if folder is None:
        refuse_doubtful_mode(config, outcome.overrides)
        return Job(config, outcome.overrides, outcome.folder_name, None)
    run, stored = lock_run(folder), read_config(folder)
    config = merge_configs(folder, stored, config, outcome.overrides)
    manifest = run.manifest()
    config = follow_length(config, stored, manifest.get("overrides", ()))
    if manifest["status"] == "finished" and not changed_keys(stored, config) & EXTENDING:
        result, more = manifest["result"], "Nothing is left to do."
        if early := result.get("stopped_early"):
            more = f"It stopped early: {early}. Raise the patience to go on, or set it to null."
        say(f"{run.shown} is finished after {result['steps']} steps. {more}")
        run.release()
        return None
    return Job(config, outcome.overrides, outcome.folder_name, run)


def _follow(work: Work) -> int:
    """Do the jobs that the main process sends."""
    code = FINISHED
    try:
        distributed.start()
        signals.install_once()
        while (job := distributed.from_main(None)) is not None:
            try:
                work(job)
            except Stopped as error:
                code = error.code
    except Exit as error:  # the main process says the same
        return error.code
    except Exception as error:
        if not distributed.of_others(error):  # else it has ended and said why
            traceback.print_exc()
        return FAILED
    signals.ignore()
    distributed.finish()
    return code
