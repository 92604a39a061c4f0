"""What one step computes. Each value that a step returns is logged; "loss" is minimised."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .data.folders import in_file_sizes
from .data.plots import draw_masks
from .engine.api import Context, Mean, Pictures, Task
from .metrics import class_shares, pixel_accuracy

Batch = tuple[Tensor, ...]


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

        miou = MulticlassJaccardIndex(info["classes"], ignore_index=-1, validate_args=False)
        return {"miou": miou}

    def predict_step(self, model: nn.Module, batch: Batch, ctx: Context) -> list[dict[str, Any]]:
        """Return for each picture the share of each class among its pixels, and its mask."""
        masks = in_file_sizes(model(batch[0]).argmax(dim=1).cpu(), *batch[2:])
        return [{"shares": class_shares(mask, self.class_names), "mask": mask} for mask in masks]

    def images(self, model: nn.Module, batch: Batch, ctx: Context) -> dict[str, Pictures]:
        """Show picture, target and prediction. "mistakes" shows those with most wrong pixels."""
        images, masks = batch
        if ctx.training:
            return {"inputs": Pictures(draw_masks(images, masks))}
        labels = model(images).argmax(dim=1)
        shown = Pictures(draw_masks(images, masks, labels))
        wrong = ((labels != masks) & (masks >= 0)).float().mean(dim=(1, 2))
        return {"predictions": shown, "mistakes": shown._replace(score=wrong)}
