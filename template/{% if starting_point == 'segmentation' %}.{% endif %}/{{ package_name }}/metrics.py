"""Your metrics: functions of a batch. The task returns their values, and the engine logs them."""

from collections.abc import Sequence

from torch import Tensor

from .engine.api import Mean


def pixel_accuracy(logits: Tensor, masks: Tensor) -> Mean:
    """Return the share of pixels whose largest logit is that of their class, in [0, 1].

    logits: float [B, classes, H, W]; masks: int64 [B, H, W], -1 for pixels that do not count.
    """
    count = (masks >= 0).sum()
    right = (logits.argmax(dim=1) == masks).sum()
    return Mean(right / count.clamp(min=1), count)


def class_shares(mask: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Return the share of each class among the pixels of a mask, int64 [H, W]."""
    counts = mask.flatten().bincount(minlength=len(names)) / mask.numel()
    return dict(zip(names, counts.tolist(), strict=True))
