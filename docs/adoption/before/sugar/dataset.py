import torch
from sklearn.datasets import load_diabetes
from torch.utils.data import TensorDataset

MEAN, DEVIATION = 152.0, 77.0


def load(train):
    x, y = load_diabetes(return_X_y=True)
    x = torch.tensor(x, dtype=torch.float32) * 20
    y = (torch.tensor(y, dtype=torch.float32)[:, None] - MEAN) / DEVIATION
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    chosen = order[:350] if train else order[350:]
    return TensorDataset(x[chosen], y[chosen])
