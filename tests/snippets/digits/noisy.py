"""A logger, a metric and a task that draw at times of their own."""

import random

import numpy as np
import torch

from .engine.api import Logger
from .watched import Watched


def draw():
    torch.rand(3), np.random.rand(3), random.random()


class Noisy(Logger):
    def __init__(self):
        draw()

    def scalars(self, step, values):
        draw()

    def close(self):
        draw()


class Metric:
    def __init__(self):
        draw()

    def to(self, device):
        return self

    def reset(self):
        draw()

    def update(self, *values):
        draw()

    def compute(self):
        draw()
        return torch.tensor(1.0)


class NoisyTask(Watched):
    def metrics(self, info):
        return {"noise": Metric()}

    def validation_step(self, model, batch, ctx):
        if ctx.metrics:
            ctx.metrics["noise"].update(batch)
        draw()
        return super().validation_step(model, batch, ctx)
