"""What one step computes. Each value that a step returns is logged; "loss" is minimised."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .data.plots import draw_fit
from .engine.api import Context, Mean, Task
from .metrics import squared_error

Batch = tuple[Tensor, Tensor]


class Regression(Task):
    """Predict y from x. A batch is (x, y), float32 [B, inputs] and [B, outputs]."""

    def __init__(self, loss: nn.Module, points: Batch | None = None) -> None:
        self.loss, self.points = loss, points

    def training_step(
        self, model: nn.Module, batch: Batch, ctx: Context
    ) -> dict[str, Tensor | Mean]:
        x, y = batch
        predicted = model(x)
        return {"loss": self.loss(predicted, y), "mse": squared_error(predicted, y)}

    def derived(self, means: Mapping[str, float]) -> dict[str, float]:
        return {"rmse": math.sqrt(means["mse"])}

    def predict_step(self, model: nn.Module, batch: Batch, ctx: Context) -> list[dict[str, Any]]:
        x, _ = batch
        pairs = zip(x.squeeze(1).tolist(), model(x).squeeze(1).tolist(), strict=True)
        return [{"x": x, "y": y} for x, y in pairs]

    def show(self, model: nn.Module, batch: Batch, ctx: Context) -> dict[str, Any]:
        return {} if self.points is None else {"fit": draw_fit(model, self.points, ctx.device)}
