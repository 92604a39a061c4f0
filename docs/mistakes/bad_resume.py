"""A resume repeats an epoch, forgets the scheduler and replays the order of the first epochs."""

import torch
from torch import nn

EPOCHS = 6


def train(stop: int, saved: dict | None = None) -> dict:
    torch.manual_seed(0)  # the third mistake: a resumed process draws the first order again
    net = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    first = 0
    if saved:
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])  # the second mistake: no state of the scheduler
        first = saved["epoch"]  # the first mistake: this epoch is done
    for epoch in range(first, stop):
        order = torch.randperm(6).tolist()
        print(f"epoch {epoch}  lr {optimizer.param_groups[0]['lr']:.3f}  order", *order)
        for index in order:
            optimizer.zero_grad()
            net(torch.tensor([index / 6])).square().sum().backward()
            optimizer.step()
        scheduler.step()
    return {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}


print("without a stop:")
train(EPOCHS)
print("stopped after epoch 2 and resumed:")
train(EPOCHS, train(3))
