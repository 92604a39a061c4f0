"""What the tests of batches share."""

import numpy as np
import torch
from torch.utils.data import Dataset

CPU = torch.device("cpu")
DRAW = np.random.default_rng(0)


def same(a, b):
    """True if two lists of batches hold equal tensors."""
    return len(a) == len(b) and all(
        torch.equal(p, q) for x, y in zip(a, b, strict=True) for p, q in zip(x, y, strict=True)
    )


class Numbers(Dataset):
    """Samples of one random number. `calls` lists the requested indices."""

    def __init__(self):
        self.calls = []

    def __len__(self):
        return 40

    def __getitem__(self, index):
        self.calls.append(index)
        return torch.rand(2) + index
