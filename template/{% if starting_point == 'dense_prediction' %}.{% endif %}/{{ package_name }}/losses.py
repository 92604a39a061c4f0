"""Your losses: add a module here, and a file in configs/loss/ that names it as `.losses.NAME`."""

import torch
from torch import Tensor, nn

from .data.moving_textures import Pair, warp
from .engine.api import Mean, record


class FlowLoss(nn.Module):
    """A weighted sum of three terms. Each is a mean over the same pixels: those that stay in view.

    The terms share their pixels, so the sum is a mean over these pixels too. Micro-batches and
    processes then give the same gradients as a whole batch.
    """

    def __init__(self, supervised: float, loss1: float, loss2: float) -> None:
        super().__init__()
        self.weights = {"supervised": supervised, "loss1": loss1, "loss2": loss2}

    def forward(self, flow: Tensor, batch: Pair) -> Mean:
        """Return the loss. flow: float [B, 2, H, W], in pixels to the right and down."""
        flow = flow.float()
        terms = {
            "supervised": torch.linalg.vector_norm(flow - batch.flow, dim=1),
            "loss1": (warp(batch.second, flow) - batch.first).abs().mean(dim=1),
            "loss2": roughness(flow),
        }
        total = torch.zeros((), device=flow.device)
        for name, term in terms.items():
            mean = masked_mean(term, batch.valid)
            record(name, *mean)
            total = total + self.weights[name] * mean.value
        return Mean(total, batch.valid.sum())


def masked_mean(values: Tensor, valid: Tensor) -> Mean:
    """Return the mean over the valid pixels. values: float [B, H, W]; valid: bool [B, H, W]."""
    n = valid.sum()
    return Mean((values * valid).sum() / n.clamp(min=1), n)


def roughness(flow: Tensor) -> Tensor:
    """Return how much each pixel's motion differs from that of its neighbours, [B, H, W]."""
    down = nn.functional.pad(flow.diff(dim=2).abs(), (0, 0, 0, 1))
    right = nn.functional.pad(flow.diff(dim=3).abs(), (0, 1))
    return (down + right).mean(dim=1)
