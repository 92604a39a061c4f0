"""A multi-layer perceptron."""

import math
from itertools import pairwise

from torch import Tensor, nn

from ..errors import UserError


class MLP(nn.Module):
    """Flattened input → `hidden` layers with ReLU and dropout → logits of shape [B, classes]."""

    def __init__(
        self, shape: tuple[int, ...], classes: int, hidden: list[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        if any(width < 1 for width in hidden):
            raise UserError(f"model.hidden={hidden} must be a list of widths, each 1 or more.")
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise([math.prod(shape), *hidden]):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
        layers.append(nn.Linear(hidden[-1] if hidden else math.prod(shape), classes))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
