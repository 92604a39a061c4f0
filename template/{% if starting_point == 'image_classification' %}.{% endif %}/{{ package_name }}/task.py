"""What one step computes. Each value that a step returns is logged; "loss" is minimised."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from .engine.api import (
    Context,
    Mean,
    Pictures,
    Share,
    Task,
    UserError,
    class_pictures,
    class_predictions,
)
from .metrics import accuracy


class Classification(Task):
    """Predict the class of a picture. A batch is (images [B, C, H, W], labels int64 [B])."""

    several_labels = False

    def __init__(
        self,
        loss: nn.Module,
        class_names: Sequence[str] | None = None,
        multi_label: bool = False,
    ) -> None:
        if multi_label and not self.several_labels:
            raise UserError("The pictures have several labels each. Add experiment=multilabel.")
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


class MultiLabel(Classification):
    """Predict which labels a picture has. A batch is (images, labels: 0 or 1, float [B, classes])."""

    several_labels = True

    def training_step(
        self, model: nn.Module, batch: tuple[Tensor, Tensor], ctx: Context
    ) -> dict[str, Tensor | Mean | Share]:
        images, labels = batch
        return {"loss": self.loss(model(images), labels)}

    def validation_step(
        self, model: nn.Module, batch: tuple[Tensor, Tensor], ctx: Context
    ) -> dict[str, Tensor | Mean | Share]:
        images, labels = batch
        logits = model(images)
        for metric in ctx.metrics.values():
            metric.update(logits.float().sigmoid(), labels.long())
        return {"loss": self.loss(logits, labels)}

    def metrics(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Mean average precision, and F1 at probabilities of 0.5: means over the labels."""
        # This import takes a second or more, so it is not at the top.
        from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score

        count = info["classes"]
        return {
            "map": MultilabelAveragePrecision(count, validate_args=False),
            "f1": MultilabelF1Score(count, validate_args=False),
        }

    def predict_step(
        self, model: nn.Module, batch: tuple[Tensor, Tensor], ctx: Context
    ) -> list[dict[str, Any]]:
        """Return for each picture its labels, joined by "|", and the probability of each label."""
        rows = []
        for values in model(batch[0]).float().sigmoid().tolist():
            names = [str(name) for name in self.class_names or range(len(values))]
            likely = [name for name, value in zip(names, values, strict=True) if value >= 0.5]
            probabilities = dict(zip(names, values, strict=True))
            rows.append({"labels": "|".join(likely), "probabilities": probabilities})
        return rows

    def images(
        self, model: nn.Module, batch: tuple[Tensor, Tensor], ctx: Context
    ) -> dict[str, Pictures]:
        """Show the first pictures and, of a validation, those with the highest loss."""
        images, labels = batch
        if ctx.training:
            return {"inputs": Pictures(images)}
        losses = functional.binary_cross_entropy_with_logits(
            model(images).float(), labels, reduction="none"
        )
        return {"mistakes": Pictures(images, score=losses.mean(dim=1))}
