"""What one step computes. Each value that a step returns is logged; "loss" is minimised."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .engine.api import Context, Mean, Pictures, Share, Task, class_pictures, class_predictions
from .metrics import accuracy


class Classification(Task):
    """Predict the class of a picture. A batch is (images [B, C, H, W], labels int64 [B])."""

    def __init__(self, loss: nn.Module, class_names: Sequence[str] | None = None) -> None:
        self.loss, self.class_names = loss, class_names

    def training_step(
        self, model: nn.Module, batch: tuple[Tensor, Tensor], ctx: Context
    ) -> dict[str, Tensor | Mean | Share]:
        images, labels = batch
        logits = model(images)
        return {"loss": self.loss(logits, labels), "acc": accuracy(logits, labels)}

    def predict_step(
        self, model: nn.Module, batch: tuple[Tensor, Tensor], ctx: Context
    ) -> list[dict[str, Any]]:
        images, labels = batch
        return class_predictions(model(images), labels, self.class_names)

    def images(
        self, model: nn.Module, batch: tuple[Tensor, Tensor], ctx: Context
    ) -> dict[str, Pictures]:
        images, labels = batch
        if ctx.training:
            return {"inputs": Pictures(images, labels)}
        return class_pictures(images, model(images), labels)
