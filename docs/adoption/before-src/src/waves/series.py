import numpy as np
import torch
from torch.utils.data import Dataset


class Windows(Dataset):
    """`length` values of a noisy wave, and the value after them."""

    def __init__(self, length, count, seed):
        draw = np.random.default_rng(seed)
        time = np.arange(count + length)
        self.wave = np.sin(time / 5) + 0.5 * np.sin(time / 3) + draw.normal(0, 0.05, len(time))
        self.length = length

    def __len__(self):
        return len(self.wave) - self.length

    def __getitem__(self, index):
        window = torch.tensor(self.wave[index : index + self.length + 1], dtype=torch.float32)
        return window[:-1], window[-1]
