"""A model of equal blocks, as a transformer has them. Its last layer is smaller than some numbers of processes."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width, drop):
        super().__init__()
        self.norm, self.inner, self.drop = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Dropout(drop)
        self.outer = nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.drop(self.outer(torch.relu(self.inner(self.norm(x)))))


class Blocks(nn.Module):
    def __init__(self, shape, classes, width=12, norm="layer", drop=0.1, lazy=False):
        super().__init__()
        inputs = shape[0] * shape[1] * shape[2]
        self.first = nn.LazyLinear(width) if lazy else nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(Block(width, drop) for _ in range(2))
        self.norm = nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width)
        self.scale = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.first(x.flatten(1))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x) * self.scale)
