"""What one step computes. Each value that a step returns is logged; "loss" is minimised."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .data.text import UNKNOWN
from .engine.api import Context, Mean, Task
from .metrics import perplexity
from .models.generate import continuations

Batch = tuple[Tensor, Tensor]


class LanguageModel(Task):
    """Predict the next token. A batch is (inputs, targets), each int64 [B, length]."""

    def __init__(self, loss: nn.Module, context: int, temperature: float) -> None:
        self.loss, self.context, self.temperature = loss, context, temperature

    def training_step(self, model: nn.Module, batch: Batch, ctx: Context) -> dict[str, Mean]:
        inputs, targets = batch
        loss = self.loss(model(inputs).flatten(0, 1), targets.flatten())
        # A mean over tokens: batches hold different numbers of them.
        return {"loss": Mean(loss, (targets != UNKNOWN).sum())}

    def derived(self, means: Mapping[str, float]) -> dict[str, float]:
        return {"ppl": perplexity(means["loss"])}

    def predict_step(self, model: nn.Module, batch: Batch, ctx: Context) -> list[dict[str, Any]]:
        texts = continuations(model, batch[0], self.context, self.temperature)
        return [{"text": text} for _, text in texts]

    def show(self, model: nn.Module, batch: Batch, ctx: Context) -> dict[str, str]:
        """Show how the model continues the first eight bytes of four documents."""
        texts = continuations(model, batch[0][:4, :9], self.context, self.temperature)
        return {"samples": "\n".join(f"{prompt}|{text}" for prompt, text in texts)}

    def example(self, batch: Batch) -> tuple[Tensor]:
        """Return inputs of full length, for an export. Padding on the right has no effect."""
        inputs = batch[0]
        return (F.pad(inputs, (0, self.context - inputs.shape[1])),)
