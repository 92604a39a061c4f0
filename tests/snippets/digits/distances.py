"""Pairs of points and a model of their distance. The gradient of a distance of 0 is NaN, its value is not."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from .engine.api import Data, Mean, Task


class Pairs(Data):
    """64 pairs in their order, so that step n of an epoch takes samples 8(n - 1) … 8n - 1."""

    def __init__(self, same: int = -1) -> None:
        draw = torch.Generator().manual_seed(1)
        a, b = torch.randn(64, 3, generator=draw), torch.randn(64, 3, generator=draw)
        if same >= 0:
            b[same] = a[same]
        rows = torch.arange(64)
        far = (a - b).norm(dim=1)
        self.splits = {
            "train": TensorDataset(a, b, far, rows),
            "val": TensorDataset(a[:20] + 1, b[:20] - 1, far[:20], rows[:20]),
        }

    def split(self, name):
        return self.splits.get(name)

    def order(self, epoch, key):
        return np.arange(64)


class Embed(nn.Module):
    """`mask` is infinite from the start. `grows` changes with each step, and does not reach the loss."""

    def __init__(self, growth: float = 1.0, sparse: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 2)
        self.rows = nn.Embedding(64, 2, sparse=True) if sparse else None
        self.growth = growth
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))
        self.register_buffer("grows", torch.ones(3))

    def forward(self, x, rows):
        if self.training:
            self.grows *= self.growth
        far = self.second(self.first(x).tanh())
        return far if self.rows is None else far + self.rows(rows)


class Distance(Task):
    """`mean`: the loss is a `Mean`. `scale` multiplies the loss."""

    def __init__(self, mean: bool = False, scale: float = 1.0) -> None:
        self.mean, self.scale = mean, scale

    def training_step(self, model, batch, ctx):
        a, b, y, rows = batch
        far = (model(a, rows) - model(b, rows)).pow(2).sum(1).sqrt()
        loss = (far - y).pow(2).mean() * self.scale
        return {"loss": Mean(loss, len(a)) if self.mean else loss}

    def validation_step(self, model, batch, ctx):
        # Each validation is the best so far, so that best.pt is written at each.
        return {"loss": torch.tensor(-float(ctx.step)), "distance": super().validation_step(model, batch, ctx)["loss"]}


class InTurn(Distance):
    """Trains the second layer in even steps, and the first in odd ones."""

    def trains(self, ctx):
        return ["second"] if ctx.step % 2 == 0 else ["first"]


class FirstIsBroken(InTurn):
    """The gradient of the first layer is NaN in even steps, when it is not trained."""

    def training_step(self, model, batch, ctx):
        values = super().training_step(model, batch, ctx)
        if ctx.step % 2 == 0:
            zero = (model.first.weight * 0).sum().sqrt()
            values["loss"] = values["loss"] + torch.where(zero > 1, zero, 0)
        return values
