"""A data set makes its generator in `__init__`. Each loader worker gets a copy, in each epoch."""

import numpy as np
from torch.utils.data import DataLoader, Dataset


class Noise(Dataset):
    """The random part of eight augmented samples."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)  # the mistake: this state is copied into each worker

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> float:
        return self.generator.normal()


if __name__ == "__main__":
    loader = DataLoader(Noise(), batch_size=1, num_workers=2)
    every = []
    for epoch in range(3):
        draws = [draw.item() for draw in loader]
        every += draws
        print(f"epoch {epoch}: ", *[f"{draw:6.3f}" for draw in draws])
    print(len(set(every)), "different draws for", len(every), "samples")
