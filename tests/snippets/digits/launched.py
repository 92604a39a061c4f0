"""A task that notes when and where its job trains, and ends the job at step 5 as `ends` says."""

import json
import os
import signal
import time
from pathlib import Path

from .engine import signals
from .task import Classification

NOTES = Path(os.environ.get("NOTES", "."))


class Launched(Classification):
    def __init__(self, loss, ends: str = "") -> None:
        super().__init__(loss)
        self.ends = ends

    def training_step(self, model, batch, ctx):
        if ctx.training and ctx.step > 1:
            self.note(ctx.step)
            time.sleep(0.02 * (self.ends == "slow"))
        if ctx.training and ctx.step == 5:
            self.end()
        return super().training_step(model, batch, ctx)

    def note(self, step):
        line = {"job": os.getpid(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "time": time.time(), "step": step}
        with open(NOTES / "notes.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def end(self):
        if self.ends == "fail":
            raise RuntimeError("a failure in a job")
        if self.ends == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        while self.ends == "wait" and signals.pending is None:
            time.sleep(0.05)
        first = NOTES / "again"
        if self.ends == "again" and not first.exists():  # as a cluster, which starts the job again
            first.touch()
            os.kill(os.getppid(), signal.SIGUSR2)
            time.sleep(1)
