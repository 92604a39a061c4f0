"""Call the task's `after_step` and `after_validation`, if it has them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from . import rng
from .api import Context, Task
from .build.parts import Parts
from .machine.distributed import is_main
from .rng import Domain


class Hooks:
    """Calls what the task overrides: in each process, with the same random draws."""

    def __init__(self, parts: Parts, folder: Path | None) -> None:
        """folder: that of the run. None: there is no run."""
        self.parts, self.folder = parts, folder if is_main() else None
        task = type(parts.task)
        self.has_after_step = task.after_step is not Task.after_step
        self.has_after_validation = task.after_validation is not Task.after_validation

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        p = self.parts
        p.task.after_step(p.model, p.optimizer, self._begin(step, training=True))
        if not p.model.training:  # it may have drawn a sample
            p.model.train()

    @torch.no_grad()
    def after_validation(self, step: int, model: nn.Module, values: Mapping[str, float]) -> None:
        """Call `after_validation`. `model` is the one that was validated, in eval mode."""
        if self.has_after_validation:
            self.parts.task.after_validation(model, values, self._begin(step, training=False))

    def _begin(self, step: int, training: bool) -> Context:
        p, plan = self.parts, self.parts.train.plan
        rng.seed_all(rng.make_key(p.config.seed, Domain.HOOK, step, training))
        ends = step % plan.steps == 0
        return Context(step, plan.epoch(step), training, p.device, p.metrics, ends, self.folder)
