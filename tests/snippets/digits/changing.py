"""Models whose parameters or buffers change after they are built."""

import torch
from torch import nn


class Still(nn.Module):
    """A linear model."""

    def __init__(self, shape, classes):
        super().__init__()
        self.classes = classes
        self.head = nn.Linear(shape[1] * shape[2], classes)
        self.register_buffer("memory", torch.zeros(2, 3))
        self.other = nn.Linear(classes, classes).requires_grad_(False)

    def forward(self, x):
        self.change(x.flatten(1))
        return self.other(self.head(x.flatten(1)))

    def change(self, x):
        self.memory.add_(1)


class Makes(Still):
    def change(self, x):
        if not hasattr(self, "scale"):
            self.scale = nn.Parameter(torch.ones(1))


class Replaces(Still):
    def change(self, x):
        if self.head.out_features == self.classes:
            self.head = nn.Linear(x.shape[1], self.classes)


class Unfreezes(Still):
    def change(self, x):
        self.other.requires_grad_(True)


class Grows(Still):
    def change(self, x):
        self.memory = torch.cat([self.memory, self.memory[:1]])


class Registers(Still):
    def change(self, x):
        self.register_buffer("late", torch.zeros(3))


class ReplacesAtLoad(Still):
    def _load_from_state_dict(self, state, prefix, *others):
        self.head = nn.Linear(self.head.in_features, self.classes)
        super()._load_from_state_dict(state, prefix, *others)


class UnfreezesLater(Still):
    def change(self, x):
        super().change(x)
        if self.training and self.memory[0, 0] > 15:
            self.other.requires_grad_(True)
