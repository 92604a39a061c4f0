"""Tasks that log what the usual training script gets wrong."""

import torch

from .task import Classification


class Usual(Classification):
    """Log the mode of the model, and what the data set drew."""

    def training_step(self, model, batch, ctx):
        values = super().training_step(model, batch, ctx)
        mode = torch.tensor(float(model.training))
        return {**values, "in_training_mode": mode, "draw": batch[0].double().mean()}


class Mapped(Classification):
    """Log a picture as a value."""

    def training_step(self, model, batch, ctx):
        return {**super().training_step(model, batch, ctx), "loss_map": batch[0][0, 0]}
