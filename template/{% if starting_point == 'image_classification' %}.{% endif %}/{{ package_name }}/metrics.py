"""Your metrics: functions of a batch, whose values a task returns to have them logged."""

from torch import Tensor

from .engine.api import Share


def accuracy(logits: Tensor, labels: Tensor) -> Share:
    """Share of samples whose largest logit is the label's.

    logits: float, shape [B, classes]; labels: int64, shape [B], or shares of the classes, shape
    [B, classes], of which the largest counts.
    """
    return Share(is_correct, logits, labels)


def is_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """bool, shape [B]."""
    if labels.ndim == 2:
        labels = labels.argmax(dim=1)
    return logits.argmax(dim=1) == labels
