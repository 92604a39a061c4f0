"""A net with one hidden layer: the smallest example of a model."""

from torch import Tensor, nn


class Net(nn.Module):
    """`hidden` comes from configs/model/net.yaml, `inputs` and `outputs` from the data's `info`."""

    def __init__(self, hidden: int, inputs: int = 1, outputs: int = 1) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, hidden)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x: float32 [B, inputs]. Returns y, [B, outputs]."""
        return self.output(self.hidden(x).relu())
