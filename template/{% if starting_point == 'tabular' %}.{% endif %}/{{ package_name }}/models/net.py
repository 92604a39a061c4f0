"""A residual network for tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """x + its change: norm → linear → ReLU → dropout → linear → dropout."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.change = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.change(x)


class Net(nn.Module):
    """The ResNet of Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data" (2021), with
    layer norm: a row's result does not depend on the other rows of its batch.

    numbers, categories, classes: from the data's `info`. A category becomes a vector that is learned.
    Returns logits [B, classes], or without classes one value, [B, 1].
    """

    def __init__(
        self,
        width: int,
        blocks: int,
        dropout: float,
        numbers: Mapping[str, Sequence[Any]],
        categories: Mapping[str, Sequence[str]],
        classes: int = 1,
    ) -> None:
        super().__init__()
        sizes = [(len(names) + 1, min(50, len(names) // 2 + 1)) for names in categories.values()]
        self.embeddings = nn.ModuleList(nn.Embedding(*size) for size in sizes)
        inputs = sum(1 + has_gaps for _, _, has_gaps in numbers.values())
        self.input = nn.Linear(inputs + sum(dim for _, dim in sizes), width)
        self.blocks = nn.Sequential(*[Block(width, dropout) for _ in range(blocks)])
        self.output = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, classes))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """numbers: float32 [B, N]. categories: int64 [B, C]."""
        vectors = [table(categories[:, i]) for i, table in enumerate(self.embeddings)]
        return self.output(self.blocks(self.input(torch.cat([numbers, *vectors], dim=1))))
