"""`net.train()` is missing after validation. Dropout and batch norm work in the first epoch only."""

import torch
from torch import nn


def train(switch_back: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(320, 8)
    body = nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.Dropout(0.5))
    net = nn.Sequential(body, nn.Linear(64, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    zeros = torch.zeros(5)
    net.train()
    for epoch in range(5):
        if switch_back:
            net.train()  # the mistake is to call it only once, before the loop
        for batch in x.split(32):
            features = body(batch)
            zeros[epoch] += (features == 0).float().mean() / 10
            optimizer.zero_grad()
            nn.functional.mse_loss(net[1](features), batch[:, :1]).backward()
            optimizer.step()
        net.eval()  # validation
        with torch.no_grad():
            net(x)
    print("net.train()", "in each epoch:" if switch_back else "before the loop:")
    print("  dropped per epoch", *[f"{share:.1f}" for share in zeros], end="  ")
    print("batches in batch norm's statistics:", int(body[1].num_batches_tracked))


train(switch_back=False)
train(switch_back=True)
