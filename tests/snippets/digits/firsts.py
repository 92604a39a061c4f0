"""Models and a task for the check before a run: lazy modules, batch norm, state of many kinds."""

import random

import numpy as np
import torch
from torch import nn

from .task import Classification


class Lazy(nn.Module):
    """Learns all shapes from the first batch. Dropout draws before the last layer does."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.Dropout(0.5), nn.LazyLinear(classes)
        )

    def forward(self, images):
        return self.net(images)


class Spare(Lazy):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.spare = nn.LazyLinear(3)


class Normed(nn.Module):
    """Batch norm over samples alone: in training mode it refuses a single sample."""

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__()
        self.calls, self.last = 0, None
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width), nn.Linear(width, classes))
        self.register_buffer("count", torch.zeros(()), persistent=False)

    def forward(self, images):
        self.calls += 1
        self.count += 1
        self.last = images.mean()
        return self.net(images)


class Keeping(Classification):
    """Changes state of many kinds in each step."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__(loss)
        self.steps, self.seen, self.by_label, self.kinds = 0, [], {"none": 0}, set()
        self.total, self.array, self.teacher = torch.zeros(3), np.zeros(3), nn.Linear(2, 2)
        self.generators = [torch.Generator(), np.random.default_rng(1), random.Random(1), np.random.RandomState(1)]

    def training_step(self, model, batch, ctx):
        self.steps += 1
        self.seen.append(ctx.step)
        self.by_label["none"] += 1
        self.by_label[f"new {self.steps}"] = 1
        self.kinds.add(self.steps)
        self.total += 1
        self.array += 1
        self.teacher.weight.data += 1
        torch.rand(1, generator=self.generators[0])
        for draw in (self.generators[1].random, self.generators[2].random, self.generators[3].rand):
            draw()
        self.late = self.steps
        return super().training_step(model, batch, ctx)


class Fails(Classification):
    """Fails in training only."""

    def training_step(self, model, batch, ctx):
        if ctx.training:
            raise ValueError("no such layer")
        return super().training_step(model, batch, ctx)
