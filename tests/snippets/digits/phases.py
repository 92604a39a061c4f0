"""As `Watched`; sends a signal in validation, and tells `events` when training begins."""

import os

import events

from .watched import Watched


class Phases(Watched):
    seen = 0

    def training_step(self, model, batch, ctx):
        if ctx.training and os.environ.get("FROM") == str(ctx.step):
            events.begin()
        elif ctx.training and "FROM" not in os.environ:
            events.note()
        return super().training_step(model, batch, ctx)

    def validation_step(self, model, batch, ctx):
        if ctx.metrics is not None and ctx.step:
            Phases.seen += 1
            if os.environ.get("VALIDATION") == str(Phases.seen):
                events.send()
        return super().validation_step(model, batch, ctx)
