"""The jobs of a sweep that a launcher of Hydra starts, such as joblib's or submitit's.

The launcher's own process does not train. It starts `python train.py …` for each job, passes signals
on, and notes in the sweep's folder how the job ended. So a job trains like a run without a sweep.
"""

import contextlib
import fcntl
import io
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path
from types import FrameType
from typing import Any

from .. import signals
from ..config.compose import to_config
from ..config.stored import read_config
from ..errors import FAILED, FINISHED, STOPPED, UserError
from ..machine.distributed import WORLD_SIZE
from ..paths import ROOT, RUNS, shown, write_json
from ..text import quoted
from .find import find_run, is_run
from .outcomes import Outcome


class Jobs:
    """The jobs of one sweep. Hydra calls this object, or a launcher a copy of it in other processes."""

    work: Callable[..., float | None] | None
    """Does a job in this process. It gets the composed config, the overrides, and in a sweep a number and
    the name of the run folder. None: in a copy."""
    folder: Path
    """Of the notes, within the sweep's folder."""
    known: list[list[str]] | None = None
    """The overrides of each job of a grid. None: no launcher starts the jobs."""

    def __init__(self, outcomes: list[Outcome], work: Callable[..., float | None]) -> None:
        """outcomes: to which `collect` adds how the jobs ended."""
        self.outcomes, self.work = outcomes, work

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "work": None}

    def begin(self, sweep: str, known: list[list[str]]) -> None:
        """Prepare for a launcher. Raises `UserError`."""
        if WORLD_SIZE > 1:
            raise UserError("A launcher starts the jobs. Start this command without torchrun.")
        self.folder = ROOT / sweep / "jobs"
        try:
            self.folder.mkdir(parents=True)
        except FileExistsError:
            name = shown(self.folder.parent)
            told = f"{name} belongs to another sweep. Start again, or set another hydra.sweep.dir."
            raise UserError(told) from None
        except OSError as error:
            told = f"{shown(self.folder)} cannot be made: {error.strerror}."
            raise UserError(told) from error
        self.known = known
        self.script, self.gpus, self.host = os.path.abspath(sys.argv[0]), _gpus(), _host()
        # The launcher's processes inherit the mask. Else a Ctrl-C would end them between two jobs.
        signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)
        for number in signals.SIGNALS:
            signal.signal(number, self._stop)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._stop(signal.sigwait(signals.SIGNALS), None)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Ask the jobs on all hosts to save and stop."""
        (self.folder / "stop").touch()
        signals.handle(number, frame)

    def collect(self) -> None:
        """Add the outcomes of the jobs that a launcher has started. A job without a note has failed."""
        if self.known is None:
            return
        notes: dict[int, Any] = {n: {"overrides": job} for n, job in enumerate(self.known)}
        for path in self.folder.glob("*.json"):
            notes[int(path.stem)] = json.loads(path.read_text(encoding="utf-8"))
        for number, note in sorted(notes.items()):
            outcome = Outcome(note["overrides"], number, self.folder.parent.name)
            outcome.code = note.get("code", FAILED)
            if is_run(run := ROOT / note.get("run", "")):
                outcome.config, outcome.run = read_config(run), run
            self.outcomes.append(outcome)

    def __call__(self, composed: Any) -> float | None:
        """Do a job. Return its last monitored value, if it has one."""
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf

        settings = HydraConfig.get()
        # As typed: an interpolation may be a mistake, which `to_config` tells.
        place: list[Any] = [OmegaConf.to_container(settings.overrides.task, resolve=False)]
        if not OmegaConf.is_missing(settings.job, "num"):  # in a sweep, or started by `_start`
            number = settings.job.num
            place += [number, f"{os.path.basename(settings.sweep.dir)}_{number}"]
        value = (self.work or self._start)(composed, *place)
        return value if value is not None and math.isfinite(value) else None  # None: it failed

    def _start(self, composed: Any, overrides: list[str], number: int, name: str) -> float | None:
        """Do a job in a process of its own."""
        config, sweep = to_config(composed), self.folder.parent
        note, run = self.folder / f"{number}.json", RUNS / config.name / name
        more = [f"hydra.sweep.dir={quoted(sweep)}", f"hydra.job.num={number}", "hydra.mode=RUN"]
        if config.resume is None and note.exists() and is_run(run):  # a cluster starts it again
            more.append(f"resume={quoted(run)}")
        outcome, heard = Outcome(overrides, number, run=run), list[int]()
        self._write(note, outcome)
        own: dict[int, Any] = {
            n: signal.signal(n, lambda n, _: heard.append(n)) for n in signals.SIGNALS
        }
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)
        command = [sys.executable, self.script, *overrides, *more]
        outcome.code = self._run(command, config.device, heard)
        if config.resume is not None:
            # The job has told which run it is, or that there is none.
            with contextlib.suppress(UserError), contextlib.redirect_stderr(io.StringIO()):
                run = outcome.run = find_run(config) or run
        self._write(note, outcome)
        for asked in heard if outcome.code == STOPPED else ():
            if asked in (signal.SIGUSR1, signal.SIGUSR2) and callable(again := own[asked]):
                again(asked, None)  # of submitit: it queues the job again
        has_value = outcome.code == FINISHED and is_run(run)  # not of a dry run
        return outcome.result().get("last") if has_value else None

    def _write(self, note: Path, outcome: Outcome) -> None:
        if os.environ.get("SLURM_PROCID", "0") == "0":  # the first process of the job
            told = {"run": outcome.run, "overrides": outcome.overrides, "code": outcome.code}
            write_json(note, told)

    def _run(self, command: list[str], device: str, heard: list[int]) -> int:
        """Run a command with a GPU of its own. Return its exit code. Stop it if that is asked for."""
        asked = 0
        with self._gpu(device) as variables:
            if (self.folder / "stop").exists():
                return STOPPED
            # The job takes SIGINT only. Slurm may signal both; this process passes signals on as SIGINT.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)
            process = subprocess.Popen(
                command,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C reaches it from here alone
            )
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            while (code := process.poll()) is None:
                is_asked = bool(heard) or (self.folder / "stop").exists()
                if max(is_asked, heard.count(signal.SIGINT)) > asked:
                    asked += 1
                    process.send_signal(signal.SIGINT)
                time.sleep(0.05)
        return code if code >= 0 else 128 - code

    @contextlib.contextmanager
    def _gpu(self, device: str) -> Iterator[dict[str, str]]:
        """Hold a GPU that no other job of the sweep has. Yield the variable that shows it alone."""
        gpus = self.gpus if self.host == _host() and device in ("auto", "cuda") else []
        with contextlib.ExitStack() as stack:
            variables: dict[str, str] = {}
            while gpus and not variables and not (self.folder / "stop").exists():
                for place, gpu in enumerate(gpus):
                    file = stack.enter_context(open(self.folder / f"gpu{place}.lock", "w"))
                    with contextlib.suppress(OSError):  # another job has it
                        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        variables["CUDA_VISIBLE_DEVICES"] = gpu
                        break
                else:
                    stack.close()
                    time.sleep(0.1)
            yield variables


def _host() -> tuple[str, str | None]:
    """Return where this process runs: the host, and the job of Slurm, which may have other GPUs."""
    return socket.gethostname(), os.environ.get("SLURM_JOB_ID")


def _gpus() -> list[str]:
    """Return the GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(n) for n, _ in enumerate(glob("/dev/nvidia[0-9]*"))]
    return [name for name in named.split(",") if name not in ("", "-1")]
