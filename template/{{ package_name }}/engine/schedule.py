"""The learning rate as a function of the step, so that a resumed run needs only its step."""

import bisect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from torch.optim import Optimizer

from .config.schema import Rule, check_value
from .errors import UserError
from .progress import is_better


@dataclass(frozen=True)
class Horizon:
    """The length of a run in optimizer steps, its base `lr`, and what else a schedule may ask."""

    total_steps: int
    steps_per_epoch: int
    lr: float = 1.0
    monitor_mode: str = "min"
    validates: bool = True


def bounded(low: float, high: float, default: Any = MISSING) -> Any:
    """Return a field of a schedule whose value must be None or from `low` to `high`."""
    return field(default=default, metadata={"rule": Rule(at_least=low, at_most=high)})


@dataclass(kw_only=True)
class Schedule(ABC):
    """The base of all schedules: a linear warm-up, then `scale`. Subclass it and define `scale`."""

    horizon: Horizon
    # The length of the warm-up, in at most one of three units.
    warmup_steps: int = bounded(0, 1e12, default=0)
    warmup_epochs: float = bounded(0, 1e9, default=0)
    warmup_fraction: float = bounded(0, 1, default=0)
    interval: str = field(default="step", metadata={"rule": Rule(one_of=("step", "epoch"))})
    """How often the learning rate changes, and the unit of counts and milestones."""

    can_be_extended = True  # a resumed run may be made longer

    def __post_init__(self) -> None:
        for f in (*fields(Schedule), *fields(self)):  # a subclass may change a default, not a rule
            if "rule" in f.metadata:
                check_value(f"scheduler.{f.name}", getattr(self, f.name), f.metadata["rule"])
        given = [f.name for f in fields(Schedule) if "warmup" in f.name and getattr(self, f.name)]
        if len(given) > 1:
            raise UserError(f"Set only one of scheduler.{' and scheduler.'.join(given)}.")
        self.warmup = self.warmup_steps or round(
            self.warmup_epochs * self.horizon.steps_per_epoch
            + self.warmup_fraction * self.horizon.total_steps
        )
        self.decay_steps = max(1, self.horizon.total_steps - self.warmup)
        self.step_count = 0
        self.validate()

    def validate(self) -> None:  # noqa: B027 - most schedules refuse nothing
        """Refuse values that do not fit together. Raises `UserError`."""

    @abstractmethod
    def scale(self, step: int) -> float:
        """Return the factor of `base_lr` in optimizer step `step` (from 0), without warm-up."""

    def scale_at(self, step: int) -> float:
        """Return the factor with warm-up; with `interval=epoch`, constant within each epoch."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if self.interval == "epoch":
            step -= step % self.horizon.steps_per_epoch
        return self.scale(max(step, self.warmup))

    def lrs(self, step: int) -> dict[str, float]:
        """Return each parameter group's learning rate in optimizer step `step`, by its name."""
        scale = self.scale_at(step)
        return {g["name"]: g["base_lr"] * scale for g in self.optimizer.param_groups}

    def begin(self, optimizer: Optimizer, step: int = 0) -> None:
        """Set the learning rates for optimizer step `step`. Every group must have a `base_lr`."""
        self.optimizer, self.step_count = optimizer, step - 1
        self.step()

    def step(self) -> None:
        """Set the learning rates for the next step. Call this after `optimizer.step()`."""
        self.step_count += 1
        scale = self.scale_at(self.step_count)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale

    def observe(self, value: float) -> None:  # noqa: B027 - only Plateau uses the value
        """Take the monitored value of a validation, if it is finite."""

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step_count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step_count = state["step"]

    def units(self, step: int) -> int:
        """Return `step` in units of `interval`."""
        return step // self.horizon.steps_per_epoch if self.interval == "epoch" else step

    def done(self, step: int) -> float:
        """Return the share of the run after the warm-up that is over at `step`, from 0 to 1."""
        return min(1.0, (step - self.warmup) / self.decay_steps)


@dataclass(kw_only=True)
class Constant(Schedule):
    def scale(self, step: int) -> float:
        return 1.0


@dataclass(kw_only=True)
class Cosine(Schedule):
    """Half a cosine from 1 to `min_scale`, `cycles` times (Loshchilov & Hutter 2017)."""

    min_scale: float = bounded(0, 1, default=0.0)
    cycles: int = bounded(1, 1e6, default=1)

    def scale(self, step: int) -> float:
        done = (step - self.warmup) / self.decay_steps * self.cycles
        done = 1.0 if done >= self.cycles else done % 1
        return self.min_scale + (1 - self.min_scale) * (1 + math.cos(math.pi * done)) / 2


@dataclass(kw_only=True)
class Polynomial(Schedule):
    """(1 - the share of the run that is over) to the power of `power`. A power of 1 is a line."""

    power: float = bounded(0, 100, default=2.0)
    min_scale: float = bounded(0, 1, default=0.0)

    def scale(self, step: int) -> float:
        return self.min_scale + (1 - self.min_scale) * (1 - self.done(step)) ** self.power


@dataclass(kw_only=True)
class Exponential(Schedule):
    """Multiply by `gamma` every epoch or step, counted from the run's start."""

    gamma: float = bounded(0, 1, default=0.95)
    interval: str = "epoch"

    def scale(self, step: int) -> float:
        return self.gamma ** self.units(step)


@dataclass(kw_only=True)
class Step(Schedule):
    """Multiply by `gamma` every `step_size` epochs or steps, counted from the run's start."""

    step_size: int = bounded(1, 1e12)
    gamma: float = bounded(0, 1, default=0.1)
    interval: str = "epoch"

    def scale(self, step: int) -> float:
        return self.gamma ** (self.units(step) // self.step_size)


@dataclass(kw_only=True)
class MultiStep(Schedule):
    """Multiply by `gamma` at each of the `milestones`, in epochs or steps."""

    milestones: list[int]
    gamma: float = bounded(0, 1, default=0.1)
    interval: str = "epoch"

    def validate(self) -> None:
        if self.milestones != sorted(set(self.milestones)) or min(self.milestones, default=1) < 1:
            raise UserError(f"scheduler.milestones={self.milestones} must rise, from 1 or more.")

    def scale(self, step: int) -> float:
        return self.gamma ** bisect.bisect_right(self.milestones, self.units(step))


@dataclass(kw_only=True)
class OneCycle(Schedule):
    """1 / `div_factor`, up to 1, down to 1 / `div_factor` / `final_div_factor` (Smith & Topin 2018)."""

    pct_start: float = bounded(0, 1, default=0.3)
    """Share of the run in which the learning rate rises."""
    div_factor: float = bounded(1, 1e12, default=25.0)
    final_div_factor: float = bounded(1, 1e12, default=1e4)

    can_be_extended = False

    def validate(self) -> None:
        if self.warmup:
            raise UserError("scheduler=one_cycle has a warm-up of its own. Set the other to 0.")

    def scale(self, step: int) -> float:
        low, done = 1 / self.div_factor, self.done(step)
        if done < self.pct_start:
            return low + (1 - low) * (1 - math.cos(math.pi * done / self.pct_start)) / 2
        fall = (done - self.pct_start) / max(1e-9, 1 - self.pct_start)
        end = low / self.final_div_factor
        return end + (1 - end) * (1 + math.cos(math.pi * min(1.0, fall))) / 2


@dataclass(kw_only=True)
class WarmupStableDecay(Schedule):
    """Warm-up, then 1, then a fall to `min_scale` in the last `decay_fraction` of the run, along
    1 - √x (Hu et al. 2024, Hägele et al. 2024)."""

    decay_fraction: float = bounded(0, 1, default=0.2)
    min_scale: float = bounded(0, 1, default=0.0)

    def scale(self, step: int) -> float:
        decay = self.decay_fraction * self.horizon.total_steps
        over = (step - (self.horizon.total_steps - decay)) / max(1e-9, decay)
        return 1 - (1 - self.min_scale) * math.sqrt(min(1.0, max(0.0, over)))


@dataclass(kw_only=True)
class InverseSqrt(Schedule):
    """√(timescale / (timescale + steps after the warm-up)) (Vaswani et al. 2017, Zhai et al. 2022)."""

    timescale: int | None = bounded(1, 1e12, default=None)
    """Steps until the factor is √½. null takes the length of the warm-up, at least one step."""

    def scale(self, step: int) -> float:
        timescale = self.timescale or max(1, self.warmup)
        return math.sqrt(timescale / (timescale + step - self.warmup))


@dataclass(kw_only=True)
class Plateau(Schedule):
    """Multiply by `factor` when more than `patience` validations in a row are not better."""

    factor: float = bounded(0, 1, default=0.1)
    patience: int = bounded(0, 1e9, default=5)
    min_scale: float = bounded(0, 1, default=0.0)
    threshold: float = bounded(0, 1e9, default=0.0)
    """How much better than the best a value must be: a share of the best (rel) or a difference (abs)."""
    threshold_mode: str = field(default="rel", metadata={"rule": Rule(one_of=("rel", "abs"))})
    cooldown: int = bounded(0, 1e9, default=0)
    """Validations after a change that never count as not better."""
    current: float = field(default=1.0, init=False)
    best: float | None = field(default=None, init=False)
    bad: int = field(default=0, init=False)
    resting: int = field(default=0, init=False)

    def validate(self) -> None:
        if not self.horizon.validates:
            raise UserError("scheduler=plateau needs validations. Set val_every_epochs=1.")

    def scale(self, step: int) -> float:
        return self.current

    def observe(self, value: float) -> None:
        self.bad += 1
        margin = self.threshold if self.horizon.monitor_mode == "max" else -self.threshold
        goal = self.best
        if goal is not None:  # as torch computes it
            goal = goal * (1 + margin) if self.threshold_mode == "rel" else goal + margin
        if is_better(value, goal, self.horizon.monitor_mode):
            self.best, self.bad = value, 0
        if self.resting:
            self.resting, self.bad = self.resting - 1, 0
        if self.bad > self.patience:
            self.current, self.bad = max(self.min_scale, self.current * self.factor), 0
            self.resting = self.cooldown
            self.begin(self.optimizer, self.step_count)

    def state_dict(self) -> dict[str, Any]:
        own = {f.name: getattr(self, f.name) for f in fields(self) if not f.init}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        vars(self).update({name: value for name, value in state.items() if name != "step"})
