"""Two networks. Each step uses one of them, as in a GAN."""

from torch import nn

from .engine.api import Task


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 2))
        self.second = nn.Linear(3, 2)

    def forward(self, x, part):
        return getattr(self, part)(x)


class Alternating(Task):
    def trains(self, ctx):
        return ["first"] if ctx.step % 2 == 0 else ["second"]

    def training_step(self, model, batch, ctx):
        a, _, y, _ = batch
        part = "first" if ctx.step % 2 == 0 else "second"
        return {"loss": (model(a, part).sum(dim=1) - y).pow(2).mean()}

    def validation_step(self, model, batch, ctx):
        a, _, y, _ = batch
        return {"loss": (model(a, "first").sum(dim=1) - y).pow(2).mean()}
