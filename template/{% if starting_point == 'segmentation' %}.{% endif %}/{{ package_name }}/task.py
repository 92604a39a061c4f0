"""What one step computes. Each value that a step returns is logged; "loss" is minimised."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .data.plots import draw_masks
from .engine.api import Context, Mean, Pictures, Task
from .metrics import pixel_accuracy

Batch = tuple[Tensor, Tensor]


class Segmentation(Task):
    """Predict the class of each pixel. A batch is (images [B, C, H, W], masks int64 [B, H, W])."""

    def __init__(self, loss: nn.Module, class_names: Sequence[str]) -> None:
        self.loss, self.class_names = loss, class_names

    def training_step(
        self, model: nn.Module, batch: Batch, ctx: Context
    ) -> dict[str, Tensor | Mean]:
        images, masks = batch
        logits = model(images)
        return {"loss": self.loss(logits, masks), "acc": pixel_accuracy(logits, masks)}

    def validation_step(
        self, model: nn.Module, batch: Batch, ctx: Context
    ) -> dict[str, Tensor | Mean]:
        images, masks = batch
        logits = model(images)
        ctx.metrics["miou"].update(logits.argmax(dim=1), masks)
        return {"loss": self.loss(logits, masks), "acc": pixel_accuracy(logits, masks)}

    def metrics(self, info: Mapping[str, Any]) -> dict[str, Any]:
        # This import takes a second or more, so it is not at the top.
        from torchmetrics.classification import MulticlassJaccardIndex

        return {"miou": MulticlassJaccardIndex(info["classes"], validate_args=False)}

    def predict_step(self, model: nn.Module, batch: Batch, ctx: Context) -> list[dict[str, Any]]:
        """Return for each picture the share of each class among its pixels."""
        labels = model(batch[0]).argmax(dim=1).flatten(1)
        classes = range(len(self.class_names))
        counts = [(labels == number).float().mean(dim=1).tolist() for number in classes]
        return [
            {"shares": dict(zip(self.class_names, shares, strict=True))}
            for shares in zip(*counts, strict=True)
        ]

    def images(self, model: nn.Module, batch: Batch, ctx: Context) -> dict[str, Pictures]:
        """Show picture, target and prediction. "mistakes" shows those with most wrong pixels."""
        images, masks = batch
        if ctx.training:
            return {"inputs": Pictures(draw_masks(images, masks))}
        labels = model(images).argmax(dim=1)
        shown = Pictures(draw_masks(images, masks, labels))
        wrong = (labels != masks).float().mean(dim=(1, 2))
        return {"predictions": shown, "mistakes": shown._replace(score=wrong)}
