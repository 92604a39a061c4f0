"""Means of logged values since the last log point and over the epoch, and `log.windows`."""

import copy
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from ..api import Share, check_scalar, count_share
from ..errors import UserError, nearest
from ..machine import distributed
from ..means import Mean, value_and_n
from ..text import logger


def _fold(statistic: str, state: list[float], value: float, n: float) -> list[float]:
    """Return the state after one more step. It starts empty and has at most three floats."""
    if statistic == "mean":
        total, count = state or (0.0, 0.0)
        return [total + value * n, count + n]
    if statistic == "std":  # Welford's recurrence: the sum of squares never decreases
        count, mean, squares = state or (0.0, 0.0, 0.0)
        count += 1
        difference = value - mean
        mean += difference / count
        return [count, mean, squares + difference * (value - mean)]
    if statistic == "current" or not state or math.isnan(value):  # a NaN stays
        return [value]
    return [max(state[0], value) if statistic == "max" else min(state[0], value)]


class Window:
    """One entry of `log.windows`: a statistic of the values of several steps."""

    def __init__(
        self, source: str, statistic: str, window: int | str = "global", name: str | None = None
    ) -> None:
        self.source, self.statistic, self.window = source, statistic, window
        self.entry = {"source": source, "statistic": statistic, "window": window}
        self.name = source if name is None else name
        self.state: list[float] = []
        """The fold over an epoch or a run."""
        self.rows: deque[tuple[int, float, float]] = deque()
        """(step, value, n) of the last steps, if `window` is a number of steps."""

    def add(self, step: int, value: float, n: float) -> None:
        if isinstance(self.window, int):
            self.rows.append((step, value, n))
            while self.rows[0][0] <= step - self.window:
                self.rows.popleft()
        else:
            self.state = _fold(self.statistic, self.state, value, n)

    def read(self, step: int) -> float | None:
        """The statistic after `step`, or None if the window holds no value."""
        state = self.state
        if isinstance(self.window, int):
            for at, value, n in self.rows:
                if at > step - self.window:
                    state = _fold(self.statistic, state, value, n)
        if not state:
            return None
        if self.statistic == "mean":
            return state[0] / state[1]
        if self.statistic == "std":
            return math.sqrt(state[2] / (state[0] - 1)) if state[0] > 1 else 0.0
        return state[0]

    def state_dict(self) -> dict[str, Any]:
        return {
            **self.entry,
            "state": list(self.state),
            "rows": torch.tensor(self.rows, dtype=torch.float64).reshape(-1, 3),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Load the state of the same entry. Return False, and load nothing, for another entry."""
        if not self.entry.items() <= state.items():
            return False
        self.state = list(state["state"])
        self.rows = deque((int(step), value, n) for step, value, n in state["rows"].tolist())
        return True


class Statistics:
    """Collects logged values and computes their statistics over steps.

    Each key has one value per step: the mean over micro-batches and processes, weighted by `n`.
    `add` keeps values on the device, so no step waits for it. `fetch` copies all of them at once.
    Sums are in float64 and step by step, so they do not depend on when values are fetched.
    """

    _JOIN = 4096  # join tensors on the device when there are so many, to bound memory
    _FIRST_STEPS = 50  # by then every source must have been logged

    def __init__(
        self,
        device: torch.device,
        entries: Iterable[Mapping[str, Any]] = (),
        derived: Callable[[Mapping[str, float]], Mapping[str, float]] = lambda means: {},
    ) -> None:
        self.device, self.derived = device, derived
        self.windows = [Window(**entry) for entry in entries]
        self.seen: dict[str, None] = {}
        """All keys logged so far, in the order of their first value."""
        self.step = -1
        """The last step whose values were fetched."""
        self.not_finite: tuple[int, str] | None = None
        """The first fetched step whose "loss" or "gradient" is not finite, and which of the two."""
        self._sums: dict[str, dict[str, list[float]]] = {"train": {}, "train_epoch": {}}
        """Since the last log point and over the epoch: for each key the sums of value · n and of n."""
        self._labels: list[tuple[int, str, float | None, bool]] = []
        """Step, key, n (None: the next held number) and "is a count" of each held value."""
        self._held: list[Tensor] = []
        self._counts: list[Tensor] = []
        """Of each `Share`, int64. They need no copy."""
        self.bad_gradient = torch.zeros((), device=device), torch.zeros((), device=device)
        """For `look_for_not_finite`: its result, and the steps since the first bad gradient."""

    def add(self, step: int, values: Mapping[str, Any], count: float) -> None:
        """Add the values of a micro-batch of `count` samples at `step`. Raises `UserError`.

        A value is a scalar, a `Mean`, a `Share` or a list of the first two. It is copied, because a
        parameter, for example, changes in place later.
        """
        scalars: list[Tensor] = []
        for key, given in values.items():
            for value in given if isinstance(given, list) else (given,):
                if isinstance(value, Share):
                    held = count_share(key, value).to(self.device, non_blocking=True)
                    self._counts.append(held)
                    self._labels.append((step, key, len(value.tensors[0]), True))
                    continue
                n: Any = getattr(value, "mean_over", count)
                if isinstance(value, Mean):
                    value, n = value_and_n(value, count)
                is_plain = type(value) is Tensor and value.ndim == 0 and value.is_floating_point()
                if not (is_plain and value.device == self.device):
                    value = self._scalar(key, value)
                scalars.append(value.detach() if value.requires_grad else value)
                if isinstance(n, Tensor):
                    scalars.append(self._scalar(key, n))
                    n = None
                self._labels.append((step, key, n, False))
        if scalars:
            self._held.append(torch.stack(scalars))
        if len(self._held) >= self._JOIN:
            self._held = [torch.cat(self._held)]
            self._counts = self._counts and [torch.hstack(self._counts)]

    def _scalar(self, key: str, value: Tensor) -> Tensor:
        """The value as a tensor without dimensions, on the device. Raises `UserError`."""
        check_scalar(key, value)
        value = value.detach().reshape(())
        if not value.is_floating_point():  # stacked with float32, a large integer would be rounded
            value = value.double()
        return value.to(self.device, non_blocking=True)

    def fetch(self) -> None:
        """Copy the added values from the devices of all processes and sum them up."""
        labels, kinds = self._labels, [self._counts, self._held]  # of one type each: much faster
        held = [torch.hstack(kind) for kind in kinds if kind]
        self._labels, self._counts, self._held = [], [], []
        spoiled, *numbers = torch.hstack([self.bad_gradient[1].double(), *held]).tolist()
        shares = sum(is_count for *_, is_count in labels)
        counts, scalars, mine = iter(numbers[:shares]), iter(numbers[shares:]), []
        for step, key, n, is_count in labels:
            value = next(counts) / (n or 1) if is_count else next(scalars)
            mine.append((step, key, value, next(scalars) if n is None else n))
        of_all, spoiled_of_all = zip(*distributed.from_all((mine, spoiled)), strict=True)
        # The sort is stable: values of one step keep their order, however often they are fetched.
        merged, bad = sorted(itertools.chain(*of_all), key=itemgetter(0)), []
        sums: dict[str, list[tuple[int, float, float]]] = {}
        """For each key: (step, sum of value · n, sum of n) of each step."""
        for step, key, value, n in merged:
            if key == "loss" and n and not math.isfinite(value):
                bad.append((step, key))
            total = value * n if n else 0.0  # a mean over nothing may be NaN
            rows = sums.setdefault(key, [])
            if rows and rows[-1][0] == step:  # another micro-batch
                total, n = rows[-1][1] + total, rows.pop()[2] + n
            rows.append((step, total, n))
            self.step = step
        if spoiled := int(max(spoiled_of_all)):
            bad.append((self.step + 1 - spoiled, "gradient"))  # after a loss, which spoils it
        if self.not_finite is None:
            self.not_finite = min(bad, key=itemgetter(0), default=None)
        for key, rows in sums.items():
            self.seen[key] = None
            for step, total, n in rows:
                for window in self._sums.values():
                    before = window.get(key, (0.0, 0.0))
                    window[key] = [before[0] + total, before[1] + n]
                for entry in self.windows:
                    if n and entry.source == key:
                        entry.add(step, total / n, n)

    def means(self, place: str = "train") -> dict[str, float]:
        """The means since the last call, and the values that the task derives from them."""
        sums, self._sums[place] = self._sums[place], {}
        means = {key: total / n if n else math.nan for key, (total, n) in sums.items()}
        return {**means, **self.derived(means)} if means else {}

    def log_point(self) -> dict[str, float]:
        """The means since the last log point. An entry of `log.windows` may replace one."""
        named = {entry.name: entry.read(self.step) for entry in self.windows}
        values = {**self.means(), **named}
        return {f"train/{key}": value for key, value in values.items() if value is not None}

    def epoch_end(self) -> dict[str, float]:
        """The epoch's means. Call it after `log_point`: it restarts the windows of an epoch."""
        for entry in self.windows:
            if entry.window == "epoch":
                entry.state = []
        return {f"train_epoch/{key}": mean for key, mean in self.means("train_epoch").items()}

    def refuse_unknown_sources(self, epoch_ends: bool) -> None:
        """Raise `UserError` if neither an epoch nor `_FIRST_STEPS` logged an entry's source."""
        for entry in self.windows:
            if entry.source not in self.seen and (epoch_ends or self.step + 1 >= self._FIRST_STEPS):
                raise UserError(
                    f"Unknown source '{entry.source}' in log.windows. The first {self.step + 1} "
                    f"steps logged {', '.join(self.seen)}.{nearest(entry.source, self.seen)}"
                )

    def state_dict(self) -> dict[str, Any]:
        return {
            **copy.deepcopy(self._sums),
            "named": {entry.name: entry.state_dict() for entry in self.windows},
            "seen": list(self.seen),
            "step": self.step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sums = {place: copy.deepcopy(state[place]) for place in self._sums}
        self.seen, self.step = dict.fromkeys(state["seen"]), state["step"]
        named = state["named"]
        new = [x.name for x in self.windows if not x.load_state_dict(named.get(x.name, {}))]
        if new:
            start = self.step + 2
            logger.warning(f"log.windows changed. New at step {start}: {', '.join(new)}.")
