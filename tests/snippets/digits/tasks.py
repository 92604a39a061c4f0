"""A task that is not classification, with a model of two inputs."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from .engine.api import Data, Pictures, Task


class Pairs(Data):
    info = {}

    def split(self, name):
        values = torch.linspace(0, 1, 64)[:, None]
        return TensorDataset(values.repeat(1, 12), values.repeat(1, 3), values) if name != "test" else None


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(12, 4), nn.Linear(3, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, a, b):
        self.calls += 1
        return (self.one(a) + self.other(b)).sum(dim=1, keepdim=True)


class Untraceable(Both):
    def forward(self, a, b):
        if torch.jit.is_tracing():
            raise RuntimeError("no graph of mine")
        return super().forward(a, b)


class Regression(Task):
    def training_step(self, model, batch, ctx):
        a, b, target = batch
        return {"loss": F.mse_loss(model(a, b), target)}

    def example(self, batch):
        return batch[0], batch[1]


class Layouts(Regression):
    """Pictures of every layout."""

    def images(self, model, batch, ctx):
        ramp = torch.linspace(-2, 2, 12).repeat(6, 1)  # 6 high, 12 wide
        return {
            "hw": ramp,
            "chw": ramp.expand(3, 6, 12),
            "hwc": ramp[..., None].expand(6, 12, 3),
            "nchw": ramp.expand(5, 1, 6, 12),
            "nhwc": ramp[None, ..., None].expand(5, 6, 12, 1),
            "名 字": (ramp > 0),
            "no picture": Pictures(torch.zeros(4, 2)),
        }


class Broken(Regression):
    def images(self, model, batch, ctx):
        raise KeyError("a bug in images")
