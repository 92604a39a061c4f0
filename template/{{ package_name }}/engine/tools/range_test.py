"""Training on trial, while the learning rate rises from step to step (Smith 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from .. import rng, signals
from ..build.parts import Parts
from ..errors import Exit
from ..rng import Domain
from ..schedule import Horizon, Schedule
from .steps import unrecorded_loop

_MEMORY = 0.9  # share of the past in the smoothed loss: it is a mean over about ten steps

_EXPLODED = 4.0  # the test ends where the smoothed loss is so many times its lowest


class Row(NamedTuple):
    """One optimizer step of the test."""

    step: int
    lr: float
    loss: float
    smoothed: float


@dataclass(kw_only=True)
class Rising(Schedule):
    """From `start` to `stop` in equal ratios; each group's rate keeps its `lr_scale` to it."""

    start: float
    stop: float

    def rate(self, step: int) -> float:
        return self.start * (self.stop / self.start) ** (step / (self.horizon.total_steps - 1))

    def scale(self, step: int) -> float:
        return self.rate(step) / self.horizon.lr


def range_test(parts: Parts) -> list[Row]:
    """Train `parts` with a rising rate until the loss explodes or the range ends."""
    test = parts.config.find_lr
    horizon = Horizon(test.steps, test.steps, parts.config.lr)
    rising = Rising(horizon=horizon, start=test.start, stop=test.stop)
    parts.scheduler, parts.averaged = rising, None
    # Batches, augmentation and dropout of its own: no step of the test is one of the run.
    key = rng.make_key(parts.config.seed, Domain.FIND_LR)
    parts.train.plan.seed = parts.train.reader.seed = key
    loop = unrecorded_loop(parts)
    loop.step_key, loop.batch_key = rng.fold_in(key, 0), rng.fold_in(key, 1)
    rising.begin(parts.optimizer)
    parts.model.train()
    rows: list[Row] = []
    average, lowest = 0.0, math.inf
    batches = parts.train.read(0, test.steps)
    for step in range(test.steps):
        if signals.requested():
            raise Exit(f"Stopped by {signals.requested()}; a range test starts anew.")
        loop.training_step(batches)
        loop.statistics.fetch()
        if loop.statistics.first_not_finite is not None:
            break
        loss = loop.statistics.means()["loss"]
        average = _MEMORY * average + (1 - _MEMORY) * loss
        smoothed = average / (1 - _MEMORY ** (step + 1))  # the first steps count in full
        rows.append(Row(step, rising.rate(step), loss, smoothed))
        lowest = min(lowest, smoothed)
        if smoothed > _EXPLODED * lowest:
            break
    return rows
