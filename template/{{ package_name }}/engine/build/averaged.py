"""Averaged weights, for `ema_decay`."""

import copy

import torch
from torch import Tensor, nn

from ..machine.torch_internals import copy_all, lerp_all


class Averaged:
    """An exponential moving average of a model's weights: e ← decay · e + (1 - decay) · w."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        own: list[Tensor] = list(self.model.parameters())
        new: list[Tensor] = [p.detach() for p in model.parameters()]
        lerp_all(own, new, 1 - self.decay)
        pairs = list(zip(self.model.buffers(), model.buffers(), strict=True))
        for dtype in (torch.float32, torch.int64):  # batch norm's buffers, one call for each dtype
            same = [pair for pair in pairs if pair[0].dtype == dtype]
            if same:
                copy_all([mine for mine, _ in same], [theirs for _, theirs in same])
        for mine, theirs in pairs:
            if mine.dtype not in (torch.float32, torch.int64):
                mine.copy_(theirs)
