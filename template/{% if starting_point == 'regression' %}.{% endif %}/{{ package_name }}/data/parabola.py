"""Noisy points of a parabola: the smallest example of a data set."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from ..engine.api import Data
from ..engine.folds import split_by_fold


def parabola(x: Tensor) -> Tensor:
    return 3 * x**2 + 2


class Parabola(Data):
    """y = 3x² + 2 at random x from -1 to 1, plus noise of standard deviation `noise`.

    A sample is (x, y), each float32 [1]. Of so many `folds`, number `fold` is for validation.
    """

    endings = (".csv", ".txt")

    def __init__(
        self, points: int, held_out: int, noise: float, folds: int | None = None, fold: int = 0
    ) -> None:
        # The same points in every run: their key is a constant, not the run's seed.
        draw = torch.Generator().manual_seed(0)
        self.splits = {}
        for name, count in (("train", points), ("val", held_out), ("test", held_out)):
            x = 2 * torch.rand(count, 1, generator=draw) - 1
            y = parabola(x) + noise * torch.randn(count, 1, generator=draw)
            self.splits[name] = TensorDataset(x, y)
        if folds is not None:
            both = torch.cat([torch.cat(self.splits[n].tensors, dim=1) for n in ("train", "val")])
            parts = split_by_fold(torch.zeros(len(both)), folds, fold)
            for name, part in zip(("train", "val"), parts, strict=True):
                self.splits[name] = TensorDataset(*both[part].split(1, dim=1))
        # A model or task with a parameter `points` gets this value.
        self.info = {"points": self.splits["train"].tensors}

    def split(self, name: str) -> Dataset | None:
        return self.splits.get(name)

    def files(self, paths: Sequence[str]) -> Dataset:
        return Lines(paths)


class Lines(TensorDataset):
    """Files with one x in each line, for `predict`. Their y is unknown: NaN."""

    def __init__(self, paths: Sequence[str]) -> None:
        columns = [np.loadtxt(path, dtype=np.float32, ndmin=1) for path in paths]
        x = torch.from_numpy(np.concatenate(columns)).view(-1, 1)
        super().__init__(x, torch.full_like(x, torch.nan))
        pairs = zip(paths, columns, strict=True)
        self.names = [f"{path}:{line + 1}" for path, column in pairs for line in range(len(column))]
