"""A loss with parameters of its own: two errors, weighed by learned uncertainties (Kendall et al. 2018)."""

import torch
from torch import nn
from torch.utils.data import TensorDataset

from .engine.api import Data, Task, record


class Lines(Data):
    def split(self, name):
        generator = torch.Generator().manual_seed(len(name))
        x = torch.rand(256, 3, generator=generator)
        clean, noisy = x.sum(dim=1), x[:, 0] - x[:, 1] + torch.randn(256, generator=generator)
        return None if name == "test" else TensorDataset(x, torch.stack([clean, noisy], dim=1))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2))

    def forward(self, x):
        return self.layers(x)


class Uncertain(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(2))

    def forward(self, output, target):
        errors = (output - target).square().mean(dim=0)
        record("clean", errors[0])
        return (errors * (-self.log_variance).exp() + self.log_variance).sum()


class Weighed(Task):
    def __init__(self, loss):
        self.loss = loss

    def training_step(self, model, batch, ctx):
        x, target = batch
        return {"loss": self.loss(model(x), target), "sigma2": self.loss.log_variance[1].exp()}
