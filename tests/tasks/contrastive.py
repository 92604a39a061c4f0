"""Batches of four pictures of each of eight kinds: sampling by `Data.order`."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import TensorDataset

from .engine.api import Data, Task


class Kinds(Data):
    """Noisy copies of eight prototypes, of which the first ones are much rarer."""

    info = {"features": 16}

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        prototypes = torch.randn(8, 16, generator=generator)
        self.splits = {}
        for name, size in (("train", 512), ("val", 256)):
            labels = (torch.rand(size, generator=generator).sqrt() * 8).long()
            noise = torch.randn(size, 16, generator=generator)
            self.splits[name] = TensorDataset(prototypes[labels] + 0.7 * noise, labels)

    def split(self, name):
        return self.splits.get(name)

    def order(self, epoch, key):
        rng, labels = np.random.default_rng(key), self.splits["train"].tensors[1].numpy()
        kinds = [np.flatnonzero(labels == kind) for kind in range(8)]
        return np.concatenate([rng.choice(members, 4) for _ in range(16) for members in kinds])


class Embedding(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 8))

    def forward(self, x):
        return normalize(self.layers(x), dim=1)


class Contrastive(Task):
    def training_step(self, model, batch, ctx):
        x, labels = batch
        similar = model(x) @ model(x).T / 0.2  # two forwards: two dropouts
        same = (labels[:, None] == labels).float()
        values = {"loss": cross_entropy(similar, same / same.sum(dim=1, keepdim=True))}
        if ctx.training:
            values["kinds"] = labels.bincount(minlength=8).gt(0).float().sum()
        return values

    def validation_step(self, model, batch, ctx):
        x, labels = batch
        similar = model(x) @ model(x).T
        nearest = similar.fill_diagonal_(-torch.inf).argmax(dim=1)
        return {**self.training_step(model, batch, ctx), "acc": (labels[nearest] == labels).float().mean()}
