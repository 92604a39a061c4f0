"""The sum of the losses is divided by the number of batches, and not reset after an epoch."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

inputs = torch.ones(10, 1)
targets = torch.cat([torch.zeros(8, 1), torch.full((2, 1), 4.0)])  # the last two samples are hard
loader = DataLoader(TensorDataset(inputs, targets), batch_size=4)  # batches of 4, 4 and 2
net = nn.Linear(1, 1)
nn.init.ones_(net.weight)
nn.init.zeros_(net.bias)

never_reset = 0.0
for epoch in range(3):  # the network does not change, so neither does its loss
    by_samples = by_batches = 0.0
    for x, y in loader:
        loss = nn.functional.mse_loss(net(x), y).item()
        by_samples += loss * len(x) / len(inputs)
        by_batches += loss / len(loader)  # a mistake: the batch of 2 counts like a batch of 4
        never_reset += loss * len(x) / len(inputs)  # another mistake: it starts at 0 only once
    print(f"epoch {epoch}  over samples {by_samples:.2f}", end="  ")
    print(f"over batches {by_batches:.2f}  never reset {never_reset:.2f}")
