"""A task whose values are partly NaN and infinite. Its loss is neither."""

import torch

from .task import Classification


class Undefined(Classification):
    def training_step(self, model, batch, ctx):
        values = super().training_step(model, batch, ctx)
        return {**values, "odd": torch.tensor(torch.nan), "huge": torch.tensor(torch.inf)}

    def predict_step(self, model, batch, ctx):
        rows = super().predict_step(model, batch, ctx)
        return [{**row, "odd": float("nan"), "several": [1.0, float("inf")]} for row in rows]
