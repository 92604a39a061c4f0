"""The scheduler steps before the optimizer. The first rate is never used, and the last step does nothing."""

import warnings

import torch
from torch import nn

warnings.simplefilter("ignore")  # torch warns of it, once, among all other lines


def train(scheduler_first: bool) -> None:
    torch.manual_seed(0)
    net = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
    used = []
    for _ in range(5):
        optimizer.zero_grad()
        net(torch.ones(1)).square().sum().backward()
        before = net.weight.item()
        if scheduler_first:
            scheduler.step()  # the mistake
        used.append(f"{optimizer.param_groups[0]['lr']:.3f}")
        optimizer.step()
        if not scheduler_first:
            scheduler.step()
    moved = abs(net.weight.item() - before)
    print("scheduler" if scheduler_first else "optimizer", "first:  rates", *used, f" last update {moved:.4f}")


train(scheduler_first=True)
train(scheduler_first=False)
