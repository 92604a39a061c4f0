"""Draw text from a model, byte by byte."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.text import END


@torch.no_grad()
def continuations(
    model: nn.Module, prompts: Tensor, context: int, temperature: float
) -> list[tuple[str, str]]:
    """Return each prompt and its continuation, up to the text's end or to `context` bytes.

    prompts: int64 [B, length], padded with END on the right. torch's generator draws the bytes.
    `temperature` 0 takes the likeliest byte each time.
    """
    lengths = (prompts != END).sum(dim=1) + 1  # END also stands before each prompt
    rows = continued(model, prompts, lengths, context, temperature, END)
    return [(_read(bytes(row[1:n])), _read(bytes(row[n:]))) for row, n in rows]


@torch.no_grad()
def continued(
    model: nn.Module,
    prompts: Tensor,
    lengths: Tensor,
    context: int,
    temperature: float,
    end: int | None = None,
) -> list[tuple[list[int], int]]:
    """Return the tokens of each prompt with its continuation, and how many of them are the prompt.

    prompts: int64 [B, length]; row i has lengths[i] tokens, then padding. `end` ends a text.
    """
    tokens = F.pad(prompts, (0, context - prompts.shape[1]), value=end or 0)
    is_over = torch.zeros_like(lengths, dtype=torch.bool)
    for place in range(int(lengths.min()), context):
        logits = model(tokens[:, :place])[:, -1].float()
        if temperature > 0:
            drawn = torch.multinomial((logits / temperature).softmax(dim=1), 1).squeeze(1)
        else:
            drawn = logits.argmax(dim=1)
        is_given = place < lengths
        if end is not None:
            is_over |= (drawn == end) & ~is_given
            if is_over.all():
                break
            drawn = drawn.masked_fill(is_over, end)
        tokens[:, place] = torch.where(is_given, tokens[:, place], drawn)
    return list(zip(tokens.tolist(), lengths.tolist(), strict=True))


def _read(text: bytes) -> str:
    return text.rstrip(bytes([END])).decode(errors="replace")
