"""The schedule and the log know only group 0. The second group keeps its rate to the end."""

import torch
from torch import nn

torch.manual_seed(0)
body, head = nn.Linear(4, 4), nn.Linear(4, 1)
groups = [{"params": body.parameters(), "lr": 0.01}, {"params": head.parameters(), "lr": 0.1}]
optimizer = torch.optim.SGD(groups)
steps = 100
for step in range(steps + 1):
    optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / steps)  # the mistake: sets one group
    if step % 25 == 0:
        logged = optimizer.param_groups[0]["lr"]  # the mistake again: logs one group
        rates = [f"{group['lr']:.4f}" for group in optimizer.param_groups]
        print(f"step {step:3d}  log: lr {logged:.4f}  groups:", *rates)
    x = torch.randn(8, 4)
    optimizer.zero_grad()
    nn.functional.mse_loss(head(body(x)), x.sum(1, keepdim=True)).backward()
    optimizer.step()
