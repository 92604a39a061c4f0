"""Where a run's time goes, and how much of it is left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager


def due(first: int, last: int, every: Sequence[int]) -> int:
    """How many of the steps `first` … `last` are a multiple of one of `every`, at most two of them.

    A 0 among `every` stands for never; `last` counts in any case.
    """
    periods = [period for period in every if period]

    def up_to(step: int) -> int:
        both = step // math.lcm(*periods) if len(periods) == 2 else 0
        return sum(step // period for period in periods) - both

    is_last_extra = all(last % period for period in periods)
    return up_to(last) - up_to(first - 1) + is_last_extra


class Timing:
    """Seconds that steps have waited for data since the last log point."""

    def __init__(self) -> None:
        self.data_seconds = 0.0
        self._began = 0.0

    def data(self) -> Timing:
        """Measure a block that waits for data: `with timing.data():`."""
        return self

    # A class, because a generator's block takes ten times as long and every step has one.
    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.data_seconds += time.perf_counter() - self._began


class Eta:
    """Measures steps, validations and saves apart, as a run may have few or many of each.

    `done` steps of `total` are behind the run, which is only measured from here on. `every` says
    after which steps a validation and a save come, `validation_steps` how many batches the former
    has: until one was measured, each is taken to cost what a training step costs.
    """

    def __init__(
        self,
        done: int,
        total: int,
        every: Mapping[str, Sequence[int]],
        validation_steps: int,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.total, self.every, self.validation_steps = total, every, validation_steps
        self._now, self._began = now, now()
        self._first = done
        """The step from which steps are measured: the first one starts workers and compiles."""
        self._first_at = 0.0
        self._done = done
        self._is_aside = False
        self._seconds = dict.fromkeys(every, 0.0)
        self._count = dict.fromkeys(every, 0)

    def training(self) -> float:
        """Seconds that training steps have taken so far."""
        return self._now() - self._began - sum(self._seconds.values())

    def stepped(self) -> None:
        """To be called after every step."""
        if self._first == self._done:
            self._first, self._first_at = self._done + 1, self.training()

    @contextmanager
    def aside(self, what: str) -> Iterator[None]:
        """The block is a "validation", a "save" or what happens once; one within another belongs to
        the outer one."""
        if self._is_aside:
            yield
            return
        began, self._is_aside = self._now(), True
        try:
            yield
        finally:
            self._is_aside = False
            self._seconds[what] = self._seconds.get(what, 0.0) + self._now() - began
            self._count[what] = self._count.get(what, 0) + 1

    def left(self, step: int) -> float:
        """Seconds until the run's end, after `step` steps and before what is due after them."""
        if step > self._first:
            per_step = (self.training() - self._first_at) / (step - self._first)
        else:
            per_step = self.training() / max(1, step - self._done)
        seconds = per_step * (self.total - step)
        for what, every in self.every.items():
            if self._count[what]:
                each = self._seconds[what] / self._count[what]
            else:
                each = per_step * self.validation_steps if what == "validation" else 0.0
            seconds += each * due(step, self.total, every)
        return seconds
