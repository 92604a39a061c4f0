"""Build the schedule of the config's `scheduler` section: the engine's, yours or one of torch."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from ..errors import UserError
from ..schedule import Horizon, Schedule
from .target import argument_types, build, describe_error, has_type, locate

_MOST = 10_000_000  # steps or epochs: torch's schedulers go through them before the run


class TorchSchedule(Schedule):
    """Any scheduler of `torch.optim.lr_scheduler` as a function of the step.

    It changes an optimizer of its own, which has the base lr. Its learning rates, divided by the base
    lr, scale every parameter group. A momentum that it cycles is not used.
    """

    def __init__(
        self, kind: type[LRScheduler], options: Mapping[str, Any], warmup: Mapping[str, Any]
    ) -> None:
        self.kind, self.options = kind, options
        super().__init__(**warmup)

    def validate(self) -> None:
        self.alone = torch.optim.SGD([torch.zeros(())], lr=self.horizon.lr, momentum=0.9)
        self.inner = self.kind(self.alone, **self.options)
        self.scales = [self._current()]

    def _current(self) -> float:
        return float(self.alone.param_groups[0]["lr"]) / self.horizon.lr

    def scale(self, step: int) -> float:
        place = self.units(step) - self.units(self.warmup)
        while len(self.scales) <= place:
            with warnings.catch_warnings():  # torch misses an optimizer.step() before it
                warnings.simplefilter("ignore")
                self.inner.step()
            self.scales.append(self._current())
        return self.scales[place]


def build_schedule(section: Mapping[str, Any], horizon: Horizon, allowed: list[str]) -> Schedule:
    """Return the schedule of the config's `scheduler` section. Raises `UserError`."""
    kind = locate(section["_target_"], "scheduler._target_", allowed)
    if not (isinstance(kind, type) and issubclass(kind, LRScheduler)):
        return build(section, "scheduler", Schedule, allowed, {"horizon": horizon})
    if kind is torch.optim.lr_scheduler.ReduceLROnPlateau:
        raise UserError("Use scheduler=plateau in place of ReduceLROnPlateau: it reads `monitor`.")
    ours = ("warmup_steps", "warmup_epochs", "warmup_fraction", "interval")
    warmup = {key: section[key] for key in ours if key in section}
    for key, value in warmup.items():
        if not has_type(value, argument_types(Schedule)[key]):
            raise UserError(f"scheduler.{key}={value!r} has the wrong type.")
    unit = horizon.steps_per_epoch if section.get("interval") == "epoch" else 1
    if horizon.total_steps // unit > _MOST:
        raise UserError(
            f"{kind.__name__} takes minutes for more than {_MOST:,} steps. Take another scheduler."
        )
    options = {k: v for k, v in section.items() if k != "_target_" and k not in ours}
    try:
        schedule = TorchSchedule(kind, options, {"horizon": horizon, **warmup})
        schedule.scale_at(horizon.total_steps)  # raises if the scheduler ends before the run does
        return schedule
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{kind.__name__} refuses the config's section 'scheduler', or ends before the run does. "
            f"{describe_error(error)}"
        ) from None
