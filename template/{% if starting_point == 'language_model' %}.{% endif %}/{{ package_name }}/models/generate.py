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
    tokens = F.pad(prompts, (0, context - prompts.shape[1]), value=END)
    is_over = torch.zeros_like(lengths, dtype=torch.bool)
    for place in range(int(lengths.min()), context):
        logits = model(tokens[:, :place])[:, -1].float()
        if temperature > 0:
            drawn = torch.multinomial((logits / temperature).softmax(dim=1), 1).squeeze(1)
        else:
            drawn = logits.argmax(dim=1)
        is_given = place < lengths
        is_over |= (drawn == END) & ~is_given
        if is_over.all():
            break
        tokens[:, place] = torch.where(is_given, tokens[:, place], drawn.masked_fill(is_over, END))
    texts = [
        (bytes(row[1:n]), bytes(row[n:]))
        for row, n in zip(tokens.tolist(), lengths.tolist(), strict=True)
    ]
    return [(_read(prompt), _read(text)) for prompt, text in texts]


def _read(text: bytes) -> str:
    return text.rstrip(bytes([END])).decode(errors="replace")
