"""The learning rate as a function of the step: a group's `base_lr` × `scale_at(step)`.

Because it is a function, a resumed run needs to be told only its step; `Plateau` alone has state.
"""

from __future__ import annotations

import bisect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch.optim import Optimizer

from .errors import UserError


@dataclass(frozen=True)
class Horizon:
    """How long a run is, in optimizer steps, and what it does besides."""

    total_steps: int
    steps_per_epoch: int
    lr: float = 1.0
    """The config's base rate."""
    monitor_mode: str = "min"
    validates: bool = True


@dataclass(kw_only=True)
class Schedule(ABC):
    """The base of all schedules: linear warm-up, then `scale`. Subclass it and define `scale`."""

    horizon: Horizon
    warmup_steps: int = 0
    """Length of the warm-up in optimizer steps …"""
    warmup_epochs: float = 0
    """… or in epochs …"""
    warmup_fraction: float = 0
    """… or as a share of the run."""
    interval: str = "step"
    """Whether the rate changes every step or every epoch, and the unit of counts and milestones."""

    can_be_extended = True
    """Whether a run may be made longer after it was resumed."""

    def __post_init__(self) -> None:
        horizon = self.horizon
        if self.interval not in ("step", "epoch"):
            raise UserError(f"scheduler.interval={self.interval} is not one of step, epoch.")
        kinds = ("warmup_steps", "warmup_epochs", "warmup_fraction")
        given = [
            f"scheduler.{kind}={getattr(self, kind):g}" for kind in kinds if getattr(self, kind)
        ]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} are both set; set all but one to 0.")
        for kind, most in zip(kinds, (1e12, 1e9, 1), strict=True):
            _within(kind, getattr(self, kind), 0, most)
        self.warmup = self.warmup_steps or round(
            self.warmup_epochs * horizon.steps_per_epoch
            + self.warmup_fraction * horizon.total_steps
        )
        self.step_count = 0
        self.validate()

    def validate(self) -> None:  # noqa: B027 - not every schedule has something to refuse
        """Refuse impossible values. Raises `UserError`."""

    @abstractmethod
    def scale(self, step: int) -> float:
        """What base rates are multiplied by in optimizer step `step` (from 0), without warm-up."""

    def scale_at(self, step: int) -> float:
        """The same with warm-up and, for `interval=epoch`, held through each epoch."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if self.interval == "epoch":
            step -= step % self.horizon.steps_per_epoch
        return self.scale(max(step, self.warmup))

    def rates(self, step: int) -> dict[str, float]:
        """The learning rate that each group has in optimizer step `step`, by the group's name."""
        scale = self.scale_at(step)
        return {g["name"]: g["base_lr"] * scale for g in self.optimizer.param_groups}

    def begin(self, optimizer: Optimizer, step: int = 0) -> None:
        """Set the rates for optimizer step `step`; every group has its `base_lr`."""
        self.optimizer = optimizer
        self.step_count = step
        self.apply()

    def step(self) -> None:
        """After `optimizer.step()`: set the rates for the next one."""
        self.step_count += 1
        self.apply()

    def apply(self) -> None:
        scale = self.scale_at(self.step_count)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale

    def observe(self, value: float) -> None:  # noqa: B027 - only a plateau looks at it
        """Called with the monitored value after each validation."""

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step_count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step_count = state["step"]

    def units(self, step: int) -> int:
        """`step` in units of `interval`."""
        return step // self.horizon.steps_per_epoch if self.interval == "epoch" else step

    def done(self, step: int) -> float:
        """The share of the run after the warm-up that is over at `step`, from 0 to 1."""
        return min(1.0, (step - self.warmup) / max(1, self.horizon.total_steps - self.warmup))


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(f"scheduler.{name}={value:g} must be from {low:g} to {high:g}.")


@dataclass(kw_only=True)
class Constant(Schedule):
    def scale(self, step: int) -> float:
        return 1.0


@dataclass(kw_only=True)
class Cosine(Schedule):
    """Half a cosine from 1 to `min_scale`, `cycles` times (Loshchilov & Hutter 2017)."""

    min_scale: float = 0.0
    cycles: int = 1

    def validate(self) -> None:
        _within("min_scale", self.min_scale, 0, 1)
        _within("cycles", self.cycles, 1, 1e6)

    def scale(self, step: int) -> float:
        done = self.done(step) * self.cycles
        done = 1.0 if done >= self.cycles else done % 1
        return self.min_scale + (1 - self.min_scale) * (1 + math.cos(math.pi * done)) / 2


@dataclass(kw_only=True)
class Polynomial(Schedule):
    """(1 - share of the run that is over) to the power of `power`; 1 is a line."""

    power: float = 2.0
    min_scale: float = 0.0

    def validate(self) -> None:
        _within("power", self.power, 0, 100)
        _within("min_scale", self.min_scale, 0, 1)

    def scale(self, step: int) -> float:
        return self.min_scale + (1 - self.min_scale) * (1 - self.done(step)) ** self.power


@dataclass(kw_only=True)
class Exponential(Schedule):
    """Multiplied by `gamma` every epoch or step, counted from the run's start."""

    gamma: float = 0.95
    interval: str = "epoch"

    def validate(self) -> None:
        _within("gamma", self.gamma, 0, 1)

    def scale(self, step: int) -> float:
        return self.gamma ** self.units(step)


@dataclass(kw_only=True)
class Step(Schedule):
    """Multiplied by `gamma` every `step_size` epochs or steps, counted from the run's start."""

    step_size: int
    gamma: float = 0.1
    interval: str = "epoch"

    def validate(self) -> None:
        _within("step_size", self.step_size, 1, 1e12)
        _within("gamma", self.gamma, 0, 1)

    def scale(self, step: int) -> float:
        return self.gamma ** (self.units(step) // self.step_size)


@dataclass(kw_only=True)
class MultiStep(Schedule):
    """Multiplied by `gamma` at each of the `milestones`, in epochs or steps."""

    milestones: list[int]
    gamma: float = 0.1
    interval: str = "epoch"

    def validate(self) -> None:
        _within("gamma", self.gamma, 0, 1)
        if self.milestones != sorted(set(self.milestones)) or min(self.milestones, default=1) < 1:
            raise UserError(
                f"scheduler.milestones={self.milestones} must rise, from 1 or more, without "
                "repeating."
            )

    def scale(self, step: int) -> float:
        return self.gamma ** bisect.bisect_right(self.milestones, self.units(step))


@dataclass(kw_only=True)
class OneCycle(Schedule):
    """Up from 1 / `div_factor` to 1, then down to that / `final_div_factor` (Smith & Topin 2018)."""

    pct_start: float = 0.3
    """Share of the run in which the rate rises."""
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    can_be_extended = False

    def validate(self) -> None:
        _within("pct_start", self.pct_start, 0, 1)
        _within("div_factor", self.div_factor, 1, 1e12)
        _within("final_div_factor", self.final_div_factor, 1, 1e12)
        if self.warmup:
            raise UserError("The one-cycle schedule is its own warm-up; set the warm-up to 0.")

    def scale(self, step: int) -> float:
        low, done = 1 / self.div_factor, self.done(step)
        if done < self.pct_start:
            return low + (1 - low) * (1 - math.cos(math.pi * done / self.pct_start)) / 2
        fall = (done - self.pct_start) / max(1e-9, 1 - self.pct_start)
        end = low / self.final_div_factor
        return end + (1 - end) * (1 + math.cos(math.pi * min(1.0, fall))) / 2


@dataclass(kw_only=True)
class WarmupStableDecay(Schedule):
    """Warm-up, then 1, then down to `min_scale` in the last `decay_fraction` of the run, along
    1 - √x (Hu et al. 2024, Hägele et al. 2024)."""

    decay_fraction: float = 0.2
    min_scale: float = 0.0

    def validate(self) -> None:
        _within("decay_fraction", self.decay_fraction, 0, 1)
        _within("min_scale", self.min_scale, 0, 1)

    def scale(self, step: int) -> float:
        decay = self.decay_fraction * self.horizon.total_steps
        over = (step - (self.horizon.total_steps - decay)) / max(1e-9, decay)
        return 1 - (1 - self.min_scale) * math.sqrt(min(1.0, max(0.0, over)))


@dataclass(kw_only=True)
class InverseSqrt(Schedule):
    """√(timescale / (timescale + steps after the warm-up)) (Vaswani et al. 2017, Zhai et al. 2022)."""

    timescale: int | None = None
    """Steps after which the rate is √½; null takes those of the warm-up, and at least one."""

    def validate(self) -> None:
        if self.timescale is not None:
            _within("timescale", self.timescale, 1, 1e12)

    def scale(self, step: int) -> float:
        timescale = self.timescale or max(1, self.warmup)
        return math.sqrt(timescale / (timescale + step - self.warmup))


@dataclass(kw_only=True)
class Plateau(Schedule):
    """Multiplied by `factor` when `monitor` was not better in `patience` validations in a row."""

    factor: float = 0.1
    patience: int = 5
    min_scale: float = 0.0
    current: float = field(default=1.0, init=False)
    best: float | None = field(default=None, init=False)
    bad: int = field(default=0, init=False)

    def validate(self) -> None:
        _within("factor", self.factor, 0, 1)
        _within("patience", self.patience, 0, 1e9)
        _within("min_scale", self.min_scale, 0, 1)
        if not self.horizon.validates:
            raise UserError(
                "scheduler=plateau needs validations, but there are none before the run's end; set "
                "val_every_epochs or val_every_steps."
            )

    def scale(self, step: int) -> float:
        return self.current

    def observe(self, value: float) -> None:
        sign = 1 if self.horizon.monitor_mode == "max" else -1
        if self.best is None or sign * (value - self.best) > 0:
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.bad > self.patience:
            self.current, self.bad = max(self.min_scale, self.current * self.factor), 0
            self.apply()

    def state_dict(self) -> dict[str, Any]:
        own = {"current": self.current, "best": self.best, "bad": self.bad}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.current, self.best, self.bad = state["current"], state["best"], state["bad"]
