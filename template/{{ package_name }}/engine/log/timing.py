"""Where a run's time goes, and how much of it is left."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean


class Eta:
    """Measures steps, validations and saves separately, and predicts the time that is left.

    The process starts after step `done` of `total`. `every` maps "validation" and "save" to their
    periods in steps. Until the first validation, each of its `validation_steps` counts as a step.
    """

    def __init__(
        self, done: int, total: int, every: Mapping[str, Sequence[int]], validation_steps: int
    ) -> None:
        self.total, self.every, self.validation_steps = total, every, validation_steps
        self._began, self._done = time.perf_counter(), done
        self._first_ended = 0.0
        self._is_aside = False
        self._took: dict[str, list[float]] = defaultdict(list)

    def training(self) -> float:
        """The seconds that training steps have taken so far."""
        return time.perf_counter() - self._began - sum(map(sum, self._took.values()))

    def first_step_ended(self) -> None:
        """Leave out the first step from now on: it starts loader workers and may compile."""
        self._first_ended = self.training()

    @contextmanager
    def aside(self, what: str) -> Iterator[None]:
        """Time this block separately. An inner block counts towards the outer one."""
        if self._is_aside:
            yield
            return
        began, self._is_aside = time.perf_counter(), True
        yield
        self._is_aside = False
        self._took[what].append(time.perf_counter() - began)

    def left(self, step: int) -> float:
        """The seconds from `step` until the run's end, with what is due after `step`."""
        steps, seconds = step - self._done, self.training()
        if steps > 1:
            steps, seconds = steps - 1, seconds - self._first_ended
        per_step = seconds / max(1, steps)
        left = per_step * (self.total - step)
        guess = {"validation": per_step * self.validation_steps, "save": 0.0}
        for what, periods in self.every.items():
            each = fmean(self._took[what] or [guess[what]])
            left += each * due(step, self.total, periods)
        return left


def due(first: int, last: int, periods: Sequence[int]) -> int:
    """Count the multiples of the periods in [first, last]. `last` always counts. 0 means never."""
    multiples = (range(-(-first // n) * n, last + 1, n) for n in periods if n)
    return len({last}.union(*multiples))
