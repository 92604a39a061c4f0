"""A model that records values, in a block that is used twice."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .engine.api import record


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear, self.last = nn.Linear(width, width), nn.Tanh()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        y = self.linear(x) * self.scale
        record("block", y.square().mean())
        record("few", y[0].mean(), n=(y[0] > 0).sum())
        return self.last(y)  # a checkpoint repeats a forward no further than the backward needs


class Recording(nn.Module):
    def __init__(self, classes, checkpointed=False):
        super().__init__()
        self.block, self.other, self.head = Block(64), Block(64), nn.Linear(64, classes)
        self.checkpointed = checkpointed

    def forward(self, x):
        x = x.flatten(1)
        record("scale", self.block.scale)
        x = checkpoint(self.block, x, use_reentrant=False) if self.checkpointed else self.block(x)
        logits = self.head(self.other(self.block(x)))
        total = logits.mean()
        record("logits", total)
        total += 100
        return logits
