"""A task that stops or kills its own run, so that a test can choose the moment."""

import os
import signal
import threading

from .task import Classification


class Stopping(Classification):
    """Sends WITH to its own process at each step in AT; in validation where PHASE says so."""

    def training_step(self, model, batch, ctx):
        self.maybe("train", ctx.step)
        return super().training_step(model, batch, ctx)

    def validation_step(self, model, batch, ctx):
        if ctx.step:
            self.maybe("val", ctx.step)
        return super().training_step(model, batch, ctx)

    def maybe(self, phase, step):
        at = os.environ.get("AT", "")
        if at and phase == os.environ.get("PHASE", "train") and step == int(at):
            for thread in threading.enumerate():  # what was saved is on the disk, also where it is slow
                if thread is not threading.main_thread() and not thread.daemon:
                    thread.join()
            os.kill(os.getpid(), getattr(signal, os.environ["WITH"]))
