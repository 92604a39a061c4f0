"""Predictions of classes as rows and pictures, for `Task.predict_step` and `Task.images`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from .errors import UserError


class Pictures(NamedTuple):
    """Pictures for `Task.images`: a grid with captions.

    With scores, the loggers show the pictures of a validation with the highest scores above 0.
    Without scores, they show the first pictures.
    """

    images: Tensor
    """[B, C, H, W], [B, H, W, C] or [B, H, W]. Integers are 0 … 255. Floats outside of 0 … 1 are
    scaled, per channel, by the smallest and largest value of the batch."""
    target: Tensor | None = None
    """int64 [B], the true class; or, for mixed labels, float [B, classes]: the largest counts."""
    label: Tensor | None = None  # int64 [B], the predicted class
    probability: Tensor | None = None  # float [B], of the predicted class
    score: Tensor | None = None  # float [B]


def class_pictures(images: Tensor, logits: Tensor, labels: Tensor) -> dict[str, Pictures]:
    """Return, for `Task.images`, the first predictions and the mistakes with the highest loss.

    logits: float [B, classes]. labels: int64 [B].
    """
    likelihoods = logits.float().log_softmax(dim=1)
    likeliest, predicted = likelihoods.max(dim=1)
    loss = -likelihoods.gather(1, labels[:, None]).squeeze(1)
    shown = Pictures(images, labels, predicted, likeliest.exp())
    return {"predictions": shown, "mistakes": shown._replace(score=loss * (predicted != labels))}


def class_predictions(
    logits: Tensor, labels: Tensor, names: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Return for each sample its most likely class and the probability of each class.

    logits: float, [B, classes]. labels: int64, [B], -1 if unknown. names: of the classes; None
    takes their numbers.
    """
    names = [str(n) for n in (range(logits.shape[1]) if names is None else names)]
    if len(names) != logits.shape[1]:
        raise UserError(
            f"The model gives {logits.shape[1]} values for a sample, but there are {len(names)} class names. "
            "Use a checkpoint and data that fit together."
        )
    rows = []
    for values, label in zip(logits.float().softmax(dim=1).tolist(), labels.tolist(), strict=True):
        likeliest = max(range(len(values)), key=values.__getitem__)
        row = {"label": names[likeliest], "probability": values[likeliest]}
        if label >= 0:
            row["target"] = names[label]
        rows.append({**row, "probabilities": dict(zip(names, values, strict=True))})
    return rows
