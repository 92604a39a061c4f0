"""Your metrics: functions of a batch, whose values a task returns to have them logged."""

from torch import Tensor


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of samples whose largest logit is the label's.

    logits: float, shape [B, classes]; labels: int64, shape [B], or shares of the classes, shape
    [B, classes], of which the largest counts. Returns a scalar in [0, 1].
    """
    if labels.ndim == 2:
        labels = labels.argmax(dim=1)
    return (logits.argmax(dim=1) == labels).float().mean()
