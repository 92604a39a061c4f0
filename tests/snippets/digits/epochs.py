"""Data that know the epoch of each sample, and a task that logs it."""

import torch
from torch.utils.data import Dataset, random_split

from .engine.api import Data
from .task import Classification


class Numbers(Dataset):
    """A sample is (number · epoch, label, epoch)."""

    def __init__(self, size):
        self.size, self.epoch = size, None

    def __len__(self):
        return self.size

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, index):
        x = torch.full((6,), float(index)) / self.size
        return x * self.epoch, torch.tensor(index % 4), torch.tensor(float(self.epoch))


class WholeBatches(Numbers):
    sample_bytes = 40

    def batch(self, indices, keys):
        x = torch.from_numpy(indices).float()[:, None].repeat(1, 6) / self.size
        return x * self.epoch, torch.from_numpy(indices % 4), torch.full((len(indices),), float(self.epoch))


class Epochs(Data):
    info = {"classes": 4, "shape": (6,)}

    def __init__(self, kind: str):
        made = WholeBatches if kind == "batches" else Numbers
        self.splits = {"train": made(70), "val": made(9)}
        if kind == "parts":  # both splits read one data set
            train, val = random_split(Numbers(79), [70, 9], torch.Generator().manual_seed(0))
            self.splits = {"train": train, "val": val}

    def split(self, name):
        return self.splits.get(name)


class Telling(Classification):
    def training_step(self, model, batch, ctx):
        x, y, epochs = batch
        values = super().training_step(model, (x, y), ctx)
        return {**values, "seen": epochs.mean(), "spread": epochs.max() - epochs.min()}

    def images(self, model, batch, ctx):
        return {}
