"""Build the schedule of the config's `scheduler` section: the engine's, yours or one of torch."""

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..config.schema import OWN_KEYS
from ..errors import UserError
from ..schedule import Horizon, Schedule
from .target import PACKAGE, argument_types, bind, build, describe_error, has_type, locate

_MOST = 10_000_000  # steps or epochs: torch's schedulers go through them before the run


class TorchSchedule(Schedule):
    """Any scheduler of `torch.optim.lr_scheduler` as a function of the step.

    It changes an optimizer of its own, which has the base lr. Its learning rates, divided by the base
    lr, scale every parameter group. A momentum that it cycles is not used.
    """

    def __init__(
        self, section: Mapping[str, Any], allowed: list[str], ours: Mapping[str, Any]
    ) -> None:
        """section: the `_target_` and its arguments. ours: the arguments of `Schedule`."""
        self.section, self.allowed = section, allowed
        super().__init__(**ours)

    def validate(self) -> None:
        self.alone = torch.optim.SGD([torch.zeros(())], lr=self.horizon.lr, momentum=0.9)
        self.inner = self._made(self.section, "scheduler")
        self.scales = [self._current()]

    def _made(self, value: Any, key: str) -> Any:
        """Build a scheduler of torch, after those inside it. Find functions of this project."""
        if isinstance(value, list):
            return [self._made(v, f"{key}[{place}]") for place, v in enumerate(value)]
        if isinstance(value, str) and value.startswith((".", f"{PACKAGE}.")):
            return locate(value, key, self.allowed)
        if not isinstance(value, Mapping):
            return value
        target: Any = value.get("_target_")
        kind = locate(target, f"{key}._target_", self.allowed)
        if kind is ReduceLROnPlateau:
            raise UserError("Use scheduler=plateau for ReduceLROnPlateau: it reads `monitor`.")
        names = inspect.signature(kind).parameters
        given = {"optimizer" if "optimizer" in names else next(iter(names), ""): self.alone}
        bind(value, key, LRScheduler, self.allowed, given=given)
        inner = {k: self._made(v, f"{key}.{k}") for k, v in value.items() if k != "_target_"}
        return kind(**given, **inner)

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
    ours = {key: section[key] for key in OWN_KEYS["scheduler"] if key in section}
    for key, value in ours.items():
        if not has_type(value, argument_types(Schedule)[key]):
            raise UserError(f"scheduler.{key}={value!r} has the wrong type.")
    unit = horizon.steps_per_epoch if section.get("interval") == "epoch" else 1
    if horizon.total_steps // unit > _MOST:
        raise UserError(
            f"{kind.__name__} takes minutes for more than {_MOST:,} steps. Take another scheduler."
        )
    inner = {key: value for key, value in section.items() if key not in ours}
    try:
        schedule = TorchSchedule(inner, allowed, {"horizon": horizon, **ours})
        schedule.scale_at(horizon.total_steps)  # raises if the scheduler ends before the run does
        return schedule
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{kind.__name__} refuses the config's section 'scheduler', or ends before the run does. "
            f"{describe_error(error)}"
        ) from None
