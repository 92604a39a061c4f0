"""Build the schedule of the config's `scheduler` section: the engine's, yours or one of torch."""

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..config.schema import OWN_KEYS
from ..errors import UserError
from ..schedule import Horizon, Schedule
from .target import PACKAGE, bind, build, locate, refusals_of


@dataclass(kw_only=True)
class TorchSchedule(Schedule):
    """Any scheduler of `torch.optim.lr_scheduler` as a function of the step.

    It changes an optimizer of its own, which has the base lr. Its learning rates, divided by the base
    lr, scale every parameter group. A momentum that it cycles is not used.
    """

    section: Mapping[str, Any]  # the `_target_` and its arguments
    allowed: list[str]

    def validate(self) -> None:
        name = self.section["_target_"]
        if self.units(self.horizon.total_steps) > 10_000_000:  # it goes through them before the run
            raise UserError(f"{name} takes minutes for more than 10,000,000 steps. Take another.")
        self.alone = torch.optim.SGD([torch.zeros(())], lr=self.horizon.lr, momentum=0.9)
        with refusals_of(name, "scheduler"):
            self.inner = self._made(self.section, "scheduler")
            self.scales = [self._current()]
            self.scale_at(self.horizon.total_steps)  # raises if it ends before the run does

    def _made(self, value: Any, key: str) -> Any:
        """Build a scheduler of torch, after those inside it. Find functions of this project."""
        if isinstance(value, list):
            return [self._made(v, f"{key}[{place}]") for place, v in enumerate(value)]
        if isinstance(value, str) and value.startswith((".", f"{PACKAGE}.")):
            return locate(value, key, self.allowed)
        if not isinstance(value, Mapping):
            return value
        kind = locate(value.get("_target_"), f"{key}._target_", self.allowed)
        if kind is ReduceLROnPlateau:
            raise UserError("Use scheduler=plateau for ReduceLROnPlateau: it reads `monitor`.")
        names = inspect.signature(kind).parameters
        given = {"optimizer" if "optimizer" in names else next(iter(names), ""): self.alone}
        bind(value, key, LRScheduler, self.allowed, **given)
        inner = {k: self._made(v, f"{key}.{k}") for k, v in value.items() if k != "_target_"}
        return kind(**given, **inner)

    def _current(self) -> float:
        return float(self.alone.param_groups[0]["lr"]) / self.horizon.lr

    def scale(self, step: int) -> float:
        place = self.units(step) - self.units(self.warmup)
        while len(self.scales) <= place:
            with warnings.catch_warnings(action="ignore"):  # torch misses an optimizer.step()
                self.inner.step()
            self.scales.append(self._current())
        return self.scales[place]


def build_schedule(section: Mapping[str, Any], horizon: Horizon, allowed: list[str]) -> Schedule:
    """Return the schedule of the config's `scheduler` section. Raises `UserError`."""
    kind = locate(section["_target_"], "scheduler._target_", allowed)
    given: dict[str, Any] = {}
    if isinstance(kind, type) and issubclass(kind, LRScheduler):
        own = {key: value for key, value in section.items() if key in OWN_KEYS["scheduler"]}
        inner = {key: value for key, value in section.items() if key not in own}
        given = {"section": inner, "allowed": allowed}
        section = {"_target_": ".engine.build.scheduler.TorchSchedule", **own}
    made: Schedule = build(section, "scheduler", Schedule, allowed, {"horizon": horizon}, **given)
    kind = type(made)
    if kind.observe is not Schedule.observe and kind.state_dict is Schedule.state_dict:
        raise UserError(
            f"{kind.__name__} observes validations, and no checkpoint holds what it learns. Give it "
            "state_dict() and load_state_dict(state)."
        )
    with refusals_of(section["_target_"], "scheduler"):
        first, _, again = (made.scale_at(step) for step in (0, 1, 0))
    if first != again:
        raise UserError(
            f"{kind.__name__} has state that no checkpoint holds. Compute scale(step) from the step "
            "alone, or give it state_dict() and load_state_dict(state)."
        )
    return made
