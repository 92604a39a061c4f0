"""`.item()` is called in every step. On a GPU each call waits until all work so far is done."""

import torch
from torch import nn

waits = 0
item = torch.Tensor.item


def counted_item(tensor: torch.Tensor) -> float:
    global waits
    waits += 1
    return item(tensor)


torch.Tensor.item = counted_item


def train(every_step: bool) -> None:
    global waits
    torch.manual_seed(0)
    net = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    total, waits = torch.zeros(()), 0
    print("item() in each step:" if every_step else "item() at log points:")
    for step in range(1, 201):
        x = torch.randn(32, 4)
        loss = nn.functional.mse_loss(net(x), torch.randn(32, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() if every_step else loss.detach()  # the mistake is .item(); a tensor stays on the GPU
        if step % 50 == 0:
            print(f"  step {step:3d}  mean loss {total.item() / 50:.3f}  waits so far {waits}")
            total.zero_()


train(every_step=True)
train(every_step=False)
