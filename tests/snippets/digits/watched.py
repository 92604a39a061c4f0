"""A task that notes what every training batch held, and stops or kills its own run at the step AT."""

import hashlib
import os
import signal

from .task import Classification


class Watched(Classification):
    def training_step(self, model, batch, ctx):
        if ctx.training:
            digest = hashlib.sha256(b"".join(part.numpy().tobytes() for part in batch)).hexdigest()
            with open(os.environ["BATCHES"], "a") as file:
                file.write(f"{os.getpid()} {ctx.step} {digest}\n")
            if os.environ.get("AT") == str(ctx.step):
                os.environ["AT"] = ""  # once, however many micro-batches the step has
                os.kill(os.getpid(), getattr(signal, os.environ["WITH"]))
        return super().training_step(model, batch, ctx)
