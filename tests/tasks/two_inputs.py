"""A model that is called with two tensors, one of them a whole number per sample."""

import torch
from torch import nn
from torch.utils.data import TensorDataset

from .engine.api import Data, Task


class Conditional(Data):
    def split(self, name):
        generator = torch.Generator().manual_seed(len(name))
        x = torch.rand(512, 2, generator=generator)
        mode = torch.randint(2, (512,), generator=generator)
        target = torch.where(mode == 0, x.sum(dim=1), x.prod(dim=1))
        return None if name == "test" else TensorDataset(x, mode, target)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(2, 16)
        self.first, self.last = nn.Linear(2, 16), nn.Linear(16, 1)

    def forward(self, x, mode):
        return self.last(torch.tanh(self.first(x) + self.embed(mode)))[:, 0]


class Conditioned(Task):
    def training_step(self, model, batch, ctx):
        x, mode, target = batch
        return {"loss": (model(x, mode) - target).square().mean()}

    def example(self, batch):
        return tuple(batch[:2])
