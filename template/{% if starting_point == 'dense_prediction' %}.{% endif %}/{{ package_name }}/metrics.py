"""Your metrics: functions of a batch. The task returns their values, and the engine logs them."""

import torch
from torch import Tensor

from .engine.api import Mean
from .losses import masked_mean


def end_point(flow: Tensor, target: Tensor, valid: Tensor) -> dict[str, Mean]:
    """Return the mean distance to the true motion, and the share of pixels within 1 and 3 pixels.

    flow, target: float [B, 2, H, W], in pixels. valid: bool [B, H, W], the pixels that count.
    """
    distance = torch.linalg.vector_norm(flow.float() - target, dim=1)
    return {
        "epe": masked_mean(distance, valid),
        "1px": masked_mean((distance < 1).float(), valid),
        "3px": masked_mean((distance < 3).float(), valid),
    }
