"""A net with one hidden layer: the smallest example of a model."""

from torch import Tensor, nn


class Net(nn.Module):
    """`hidden` comes from configs/model/net.yaml."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(1, hidden)
        self.output = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: float32 [B, 1]. Returns y, of the same shape."""
        return self.output(self.hidden(x).relu())
