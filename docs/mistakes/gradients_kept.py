"""The gradients are not set to zero. Each step follows the sum of all gradients so far."""

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(64, 1)
y = 3 * x + 1


def train(zero: bool) -> list[float]:
    torch.manual_seed(1)
    net = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    losses = []
    for _ in range(60):
        loss = nn.functional.mse_loss(net(x), y)
        if zero:
            optimizer.zero_grad()  # the mistake is to leave this out
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


print("step:             ", *[f"{step:6d}" for step in range(10, 61, 10)])
print("set to zero:      ", *[f"{loss:6.3f}" for loss in train(zero=True)[9::10]])
print("never set to zero:", *[f"{loss:6.3f}" for loss in train(zero=False)[9::10]])
