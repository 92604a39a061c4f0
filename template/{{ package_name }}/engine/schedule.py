"""The learning rate as a function of the step: a group's `base_lr` × `scale_at(step)`.

Because it is a function, a resumed run needs to be told only its step.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch.optim import Optimizer

from .errors import UserError


@dataclass(frozen=True, slots=True)
class Horizon:
    """How long a run is, in optimizer steps."""

    total_steps: int
    steps_per_epoch: int


class Schedule:
    """A base for schedules: linear warm-up, then `scale`. Subclass it and define `scale`."""

    def __init__(
        self,
        horizon: Horizon,
        warmup_steps: int = 0,
        warmup_epochs: float = 0,
        interval: str = "step",
    ) -> None:
        if interval not in ("step", "epoch"):
            raise UserError(f"scheduler.interval={interval} is not one of step, epoch.")
        if warmup_steps and warmup_epochs:
            raise UserError(
                f"scheduler.warmup_steps={warmup_steps} and scheduler.warmup_epochs="
                f"{warmup_epochs} are both set; set one of them to 0."
            )
        if warmup_steps < 0 or warmup_epochs < 0:
            raise UserError("The scheduler's warm-up cannot be negative.")
        self.horizon = horizon
        self.interval = interval
        self.warmup_steps = warmup_steps or round(warmup_epochs * horizon.steps_per_epoch)
        self.step_count = 0

    def scale(self, step: int) -> float:
        """What the base rate is multiplied by at optimizer step `step` (from 0), without warm-up."""
        raise NotImplementedError

    def scale_at(self, step: int) -> float:
        """The same with warm-up and, for `interval=epoch`, held through each epoch."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.interval == "epoch":
            step -= step % self.horizon.steps_per_epoch
        return self.scale(max(step, self.warmup_steps))

    def rates(self, step: int) -> dict[str, float]:
        """The learning rate that each group has in optimizer step `step`, by the group's name."""
        scale = self.scale_at(step)
        return {g["name"]: g["base_lr"] * scale for g in self.optimizer.param_groups}

    def begin(self, optimizer: Optimizer, step: int = 0) -> None:
        """Set the rates for optimizer step `step`; every group has its `base_lr`."""
        self.optimizer = optimizer
        self.step_count = step
        self._apply()

    def step(self) -> None:
        """After `optimizer.step()`: set the rates for the next one."""
        self.step_count += 1
        self._apply()

    def _apply(self) -> None:
        scale = self.scale_at(self.step_count)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale

    def _units(self, step: int) -> float:
        """`step` in units of `interval`."""
        return step // self.horizon.steps_per_epoch if self.interval == "epoch" else step


class Constant(Schedule):
    def __init__(self, horizon: Horizon, warmup_steps: int = 0, warmup_epochs: float = 0) -> None:
        super().__init__(horizon, warmup_steps, warmup_epochs)

    def scale(self, step: int) -> float:
        return 1.0


class Cosine(Schedule):
    """From 1 after the warm-up to `min_scale` at the end (Loshchilov & Hutter 2017)."""

    def __init__(
        self,
        horizon: Horizon,
        warmup_steps: int = 0,
        warmup_epochs: float = 0,
        min_scale: float = 0.0,
        interval: str = "step",
    ) -> None:
        super().__init__(horizon, warmup_steps, warmup_epochs, interval)
        if not 0 <= min_scale <= 1:
            raise UserError(f"scheduler.min_scale={min_scale} must be between 0 and 1.")
        self.min_scale = min_scale

    def scale(self, step: int) -> float:
        length = max(1, self.horizon.total_steps - self.warmup_steps)
        done = min(1.0, (step - self.warmup_steps) / length)
        return self.min_scale + (1 - self.min_scale) * (1 + math.cos(math.pi * done)) / 2


class Step(Schedule):
    """Multiplied by `gamma` every `step_size` epochs or steps, counted from the run's start."""

    def __init__(
        self,
        horizon: Horizon,
        step_size: int,
        gamma: float = 0.1,
        interval: str = "epoch",
        warmup_steps: int = 0,
        warmup_epochs: float = 0,
    ) -> None:
        super().__init__(horizon, warmup_steps, warmup_epochs, interval)
        if step_size < 1:
            raise UserError(f"scheduler.step_size={step_size} must be at least 1.")
        self.step_size, self.gamma = step_size, gamma

    def scale(self, step: int) -> float:
        return self.gamma ** (self._units(step) // self.step_size)


class MultiStep(Schedule):
    """Multiplied by `gamma` at each of the `milestones`, in epochs or steps."""

    def __init__(
        self,
        horizon: Horizon,
        milestones: Sequence[int],
        gamma: float = 0.1,
        interval: str = "epoch",
        warmup_steps: int = 0,
        warmup_epochs: float = 0,
    ) -> None:
        super().__init__(horizon, warmup_steps, warmup_epochs, interval)
        if list(milestones) != sorted(set(milestones)) or any(m < 1 for m in milestones):
            raise UserError(
                f"scheduler.milestones={list(milestones)} must rise, from 1 or more, without "
                "repeating."
            )
        self.milestones, self.gamma = list(milestones), gamma

    def scale(self, step: int) -> float:
        return self.gamma ** bisect.bisect_right(self.milestones, self._units(step))
