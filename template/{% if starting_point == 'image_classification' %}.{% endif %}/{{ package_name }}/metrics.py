"""Your metrics: functions of a batch. The task returns their values, and the engine logs them."""

from torch import Tensor

from .engine.api import Share


def accuracy(logits: Tensor, labels: Tensor) -> Share:
    """Return the share of samples whose largest logit is that of the label.

    logits: float [B, classes]. labels: int64 [B], or shares of the classes, float [B, classes].
    Then the class with the largest share is the label.
    """
    return Share(is_correct, logits, labels)


def is_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return for each sample whether its prediction is correct: bool [B]."""
    if labels.ndim == 2:
        labels = labels.argmax(dim=1)
    return logits.argmax(dim=1) == labels
