"""What one step computes. Each value that a step returns is logged; "loss" is minimised."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchmetrics import R2Score

from .engine.api import Context, Mean, Share, Task, class_predictions
from .metrics import accuracy, squared_error

Batch = tuple[Tensor, Tensor, Tensor]


class Tabular(Task):
    """Predict the target of a row. A batch is (numbers [B, N], categories [B, C], targets [B]).

    Targets are class numbers, int64, or numbers scaled to mean 0 and deviation 1, float32. `target`
    is the mean and the deviation that they had: errors and predictions are in its units.
    """

    def __init__(
        self,
        loss: nn.Module,
        class_names: Sequence[str] | None = None,
        target: tuple[float, float] | None = None,
    ) -> None:
        self.loss, self.class_names, self.target = loss, class_names, target

    def training_step(
        self, model: nn.Module, batch: Batch, ctx: Context
    ) -> dict[str, Tensor | Mean | Share]:
        numbers, categories, targets = batch
        output = model(numbers, categories)
        if self.target is None:
            return {"loss": self.loss(output, targets), "acc": accuracy(output, targets)}
        output = output.squeeze(1)
        if "r2" in ctx.metrics:
            ctx.metrics["r2"].update(output, targets)
        return {"loss": self.loss(output, targets), "mse": squared_error(output, targets)}

    def derived(self, means: Mapping[str, float]) -> dict[str, float]:
        return {} if self.target is None else {"rmse": self.target[1] * math.sqrt(means["mse"])}

    def metrics(self, info: Mapping[str, Any]) -> dict[str, Any]:
        return {} if self.target is None else {"r2": R2Score()}

    def predict_step(self, model: nn.Module, batch: Batch, ctx: Context) -> list[dict[str, Any]]:
        numbers, categories, targets = batch
        output = model(numbers, categories)
        if self.target is None:
            return class_predictions(output, targets, self.class_names)
        mean, spread = self.target
        return [{"value": mean + spread * value} for value in output.squeeze(1).tolist()]

    def example(self, batch: Batch) -> tuple[Tensor, ...]:
        return batch[:2]
