"""Weights to evaluate that are not those that are trained."""

import copy
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..config.schema import Config
from ..errors import UserError
from ..machine.sharding import is_sharded
from ..machine.torch_internals import for_each
from .optimizer_state import is_schedule_free


def computed(model: nn.Module) -> list[Any]:
    """Return attributes that torch cannot copy because they were computed, such as weight_norm's."""
    return [t for m in model.modules() for t in vars(m).values() if getattr(t, "grad_fn", None)]


class Averaged:
    """An exponential moving average of a model's weights: e ← decay · e + (1 - decay) · w."""

    def __init__(
        self, model: nn.Module, decay: float, warmup: bool = False, twin: nn.Module | None = None
    ) -> None:
        """twin: a copy of `model`, if it cannot be copied any more."""
        if twin is None:
            twin = copy.deepcopy(model, {id(t): t for t in computed(model)})
        self.model = twin.requires_grad_(False)
        self.decay, self.warmup = decay, warmup
        self.updates = 0  # one for each optimizer step

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        t = self.updates
        decay = min(self.decay, (1 + t) / (10 + t)) if self.warmup else self.decay
        for_each("lerp_", list(self.model.parameters()), list(model.parameters()), 1 - decay)
        self.updates += 1
        own, new = list(self.model.buffers()), list(model.buffers())
        for dtype in {b.dtype for b in own}:  # of one dtype, all are copied in one call
            of_dtype = ([b for b in buffers if b.dtype == dtype] for buffers in (own, new))
            for_each("copy_", *of_dtype, True)


class ScheduleFree(Averaged):
    """The weights that a schedule-free optimizer evaluates (Defazio et al. 2024)."""

    def __init__(self, model: nn.Module, optimizer: Any) -> None:
        super().__init__(model, decay=0.0)
        self.optimizer = optimizer
        optimizer.train()

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        trained = [parameter.clone() for parameter in model.parameters()]
        self.optimizer.eval()
        super().update(model)
        self.optimizer.train()
        for_each("copy_", list(model.parameters()), trained)  # going there and back rounds


def build_averaged(
    config: Config, model: nn.Module, optimizer: Optimizer, twin: nn.Module | None = None
) -> Averaged | None:
    """Return the weights to evaluate, if they are not those that are trained. Raises `UserError`."""
    if is_schedule_free(optimizer) and is_sharded(config):
        raise UserError(f"parallel={config.parallel} does not work with a schedule-free optimizer.")
    if config.ema_decay is None:
        return ScheduleFree(model, optimizer) if is_schedule_free(optimizer) else None
    if is_schedule_free(optimizer):
        raise UserError("A schedule-free optimizer averages weights itself. Set ema_decay=null.")
    return Averaged(model, config.ema_decay, config.ema_warmup, twin)
