"""The config's scheduler, torch's own included, as a `Schedule`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from ..errors import UserError
from ..schedule import Horizon, Schedule
from .target import REFUSALS, build, fits, hints, locate, told

_MOST = 10_000_000  # units of a scheduler of torch, which takes a minute to go through


class TorchSchedule(Schedule):
    """Any scheduler of `torch.optim.lr_scheduler`, made a function of the step.

    It is stepped on an optimizer of its own, which holds nothing but the base rate; the rates that
    come out, relative to the base rate, apply to every group. Momentum that it cycles is not used.
    """

    def __init__(
        self, kind: type[LRScheduler], options: Mapping[str, Any], warmup: Mapping[str, Any]
    ) -> None:
        self.kind, self.options = kind, options
        super().__init__(**warmup)

    def validate(self) -> None:
        self.alone = torch.optim.SGD([torch.zeros(())], lr=self.horizon.lr, momentum=0.9)
        try:
            self.inner = self.kind(self.alone, **self.options)
        except REFUSALS as error:
            raise UserError(
                f"scheduler: {self.kind.__name__} refuses its arguments: {told(error)}"
            ) from None
        self.scales = [self._current()]

    def _current(self) -> float:
        return float(self.alone.param_groups[0]["lr"]) / self.horizon.lr

    def scale(self, step: int) -> float:
        place = self.units(step) - self.units(self.warmup)
        while len(self.scales) <= place:
            with warnings.catch_warnings():  # it misses an optimizer.step() that is not there
                warnings.simplefilter("ignore")
                try:
                    self.inner.step()
                except REFUSALS as error:
                    raise UserError(
                        f"scheduler: {self.kind.__name__} ends early: {told(error)}"
                    ) from None
            self.scales.append(self._current())
        return self.scales[place]


def build_schedule(section: Mapping[str, Any], horizon: Horizon, allowed: list[str]) -> Schedule:
    """The schedule of the config's `scheduler` section. Raises `UserError`."""
    kind = locate(section["_target_"], "scheduler._target_", allowed)
    if not (isinstance(kind, type) and issubclass(kind, LRScheduler)):
        schedule: Schedule = build(section, "scheduler", Schedule, allowed, {"horizon": horizon})
        return schedule
    if kind is LRScheduler:
        raise UserError(
            "scheduler._target_: LRScheduler is only what schedulers are made from; name one of them, "
            "such as torch.optim.lr_scheduler.StepLR."
        )
    if kind is torch.optim.lr_scheduler.ReduceLROnPlateau:
        raise UserError("scheduler._target_: take scheduler=plateau, which reads `monitor`.")
    ours = ("warmup_steps", "warmup_epochs", "warmup_fraction", "interval")
    warmup = {key: section[key] for key in ours if key in section}
    for key, value in warmup.items():
        if not fits(value, hints(Schedule)[key]):
            raise UserError(f"scheduler.{key}={value!r} is of the wrong type.")
    options = {k: v for k, v in section.items() if k != "_target_" and k not in ours}
    schedule = TorchSchedule(kind, options, {"horizon": horizon, **warmup})
    if schedule.units(horizon.total_steps) > _MOST:
        raise UserError(
            f"scheduler._target_: {kind.__name__} would have to be stepped more than {_MOST:,} times "
            "before the run; shorten the run, set scheduler.interval=epoch, or take another scheduler."
        )
    # A scheduler that ends before the run is found out now, not then.
    schedule.scale_at(horizon.total_steps)
    return schedule
