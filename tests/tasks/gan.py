"""Two networks trained in turn: points on a ring, from noise."""

import math

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.utils.data import TensorDataset

from .engine.api import Data, Task


class Ring(Data):
    def split(self, name):
        if name == "test":
            return None
        generator = torch.Generator().manual_seed(len(name))
        angles = torch.rand(512, generator=generator) * 2 * math.pi
        return TensorDataset(torch.stack([angles.cos(), angles.sin()], dim=1))


class Gan(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
        self.discriminator = nn.Sequential(
            nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1)
        )

    def forward(self, points, turn=None):
        """The loss of a turn; without one, made-up points, as many as there are real ones."""
        noise = torch.randn(len(points), 4, device=points.device)
        if turn is None:
            return self.generator(noise)
        if turn == "discriminator":
            with torch.no_grad():
                fake = self.generator(noise)
            real, fake = self.discriminator(points), self.discriminator(fake)
            return bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))
        fake = self.discriminator(self.generator(noise))
        return bce(fake, torch.ones_like(fake))


class Adversarial(Task):
    def trains(self, ctx):
        return [("discriminator", "generator")[ctx.step % 2]]

    def training_step(self, model, batch, ctx):
        (turn,) = self.trains(ctx)
        loss = model(batch[0], turn)
        return {"loss": loss, turn: loss}

    def validation_step(self, model, batch, ctx):
        radius = model(batch[0]).norm(dim=1)
        return {"loss": (radius - 1).abs().mean()}
