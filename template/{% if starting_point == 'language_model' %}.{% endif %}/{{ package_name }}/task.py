"""What one step computes. Each value that a step returns is logged; "loss" is minimised."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data.text import UNKNOWN
from .data.tokens import load_tokenizer
from .engine.api import Context, Mean, Task
from .metrics import perplexity
from .models.generate import continuations, continued

Batch = tuple[Tensor, Tensor]


class LanguageModel(Task):
    """Predict the next token. A batch is (inputs, targets), each int64 [B, length]."""

    def __init__(
        self,
        loss: nn.Module,
        context: int,
        temperature: float,
        tokenizer: str | None = None,
        is_bytes: bool = True,
    ) -> None:
        self.loss, self.context, self.temperature = loss, context, temperature
        self.is_bytes = is_bytes
        self.tokenizer = None if tokenizer is None else load_tokenizer(tokenizer)

    def training_step(self, model: nn.Module, batch: Batch, ctx: Context) -> dict[str, Mean]:
        inputs, targets = batch
        loss = self.loss(model(inputs).flatten(0, 1), targets.flatten())
        # A mean over tokens: batches hold different numbers of them.
        return {"loss": Mean(loss, (targets != UNKNOWN).sum())}

    def derived(self, means: Mapping[str, float]) -> dict[str, float]:
        return {"ppl": perplexity(means["loss"])}

    def predict_step(self, model: nn.Module, batch: Batch, ctx: Context) -> list[dict[str, Any]]:
        lengths = (batch[1] != UNKNOWN).sum(dim=1)
        return [{"text": text} for _, text in self.texts(model, batch[0], lengths)]

    def show(self, model: nn.Module, batch: Batch, ctx: Context) -> dict[str, str]:
        """Show how the model continues the first eight bytes, or nine tokens, of four documents."""
        prompts = batch[0][:4, :9]
        lengths = torch.full((len(prompts),), prompts.shape[1], device=prompts.device)
        texts = self.texts(model, prompts, lengths)
        return {"samples": "\n".join(f"{prompt}|{text}" for prompt, text in texts)}

    def texts(self, model: nn.Module, prompts: Tensor, lengths: Tensor) -> list[tuple[str, str]]:
        """Return prompts and their continuations. lengths: of prompts of tokens, without padding."""
        if self.is_bytes:
            return continuations(model, prompts, self.context, self.temperature)
        rows = continued(model, prompts, lengths, self.context, self.temperature)
        return [(self.read(row[:n]), self.read(row[n:])) for row, n in rows]

    def read(self, tokens: list[int]) -> str:
        """Return the text of tokens, or their numbers."""
        return (
            " ".join(map(str, tokens)) if self.tokenizer is None else self.tokenizer.decode(tokens)
        )

    def example(self, batch: Batch) -> tuple[Tensor]:
        """Return inputs of full length, for an export. Padding on the right has no effect."""
        inputs = batch[0]
        return (F.pad(inputs, (0, self.context - inputs.shape[1])),)
