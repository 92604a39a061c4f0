"""A small decoder-only transformer: an example of a model."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..engine.api import UserError


class GPT(nn.Module):
    """A transformer with the norm before each part of a block (Radford et al. 2019).

    The head shares the weights of the token embedding. `vocabulary` and `context` (the longest
    input) come from the data, the other arguments from the config.
    """

    def __init__(
        self, vocabulary: int, context: int, width: int, depth: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"model.width={width} must be a multiple of model.heads={heads}.")
        self.context = context
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        blocks = (f"blocks.{number}" for number in range(depth))
        self.layers_in_order = [["tokens", "positions"], *blocks, "norm"]  # for layer_decay
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                # A block's output starts smaller in deeper models, so that the sum keeps its size.
                scale = (2 * depth) ** -0.5 if name.endswith("out.weight") else 1.0
                nn.init.normal_(parameter, std=0.02 * scale)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next token at each position, float [B, length, vocabulary].

        tokens: int64 [B, length]; length is at most `context`. The logits of a position do not
        depend on tokens to its right.
        """
        length = tokens.shape[1]
        x = self.dropout(self.tokens(tokens) + self.positions.weight[:length])
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight)


class Block(nn.Module):
    """Attention to the tokens on the left, then a perceptron at each position."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = MLP(width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: float [B, length, width]. Returns the same shape."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        # q, k, v: [B, heads, length, width of a head].
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))


class MLP(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.out(F.gelu(self.up(x))))
