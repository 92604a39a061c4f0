"""Where the values and the time of a run go: console, bar, `metrics.jsonl`, loggers, profile."""

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch.profiler import profile, schedule

from ..api import Logger
from ..build.parts import Parts
from ..build.target import build
from ..machine.distributed import is_main
from ..paths import shown, to_json
from ..run.folder import open_metrics
from ..text import NUMBER_WIDTH, duration, logger, number
from .console import Cell, line, progress_bar

Periods = Sequence[int | Fraction]


class Report:
    """Shows and keeps the values of a run in the main process. Does nothing in other processes."""

    def __init__(self, parts: Parts, folder: Path, done: int, validates_again: bool) -> None:
        """Open files, loggers and the bar, after `done` steps.

        `validates_again`: drop the last validation from `metrics.jsonl`, because it is done again.
        """
        self.plan, self.total_steps, self.device = parts.train.plan, parts.total_steps, parts.device
        self.lr_shown = " " * 7
        self.loggers: list[Logger] = []
        self.metrics: IO[str] | None = None
        intervals: dict[str, Periods] = {"save": parts.save_intervals}
        validation_steps = 0
        if parts.val is not None:
            intervals["validation"], validation_steps = (parts.val_interval,), parts.val.plan.steps
        self.eta = Eta(done, self.total_steps, intervals, validation_steps)
        if is_main():
            self.metrics = open_metrics(folder, done, validates_again)
            sections, allowed = parts.config.logger.items(), parts.config.allowed_packages
            offered = {"folder": folder, "next_step": done + 1}
            self.loggers = [build(s, f"logger.{k}", Logger, allowed, offered) for k, s in sections]
        is_shown = is_main() and parts.config.log.level in ("debug", "info")
        self.bar = progress_bar(self.total_steps, done, is_shown)
        self.logged_at, self.logged_step = self.eta.training(), done
        """The training time and the step of the last log point."""

    @contextmanager
    def aside(self, what: str) -> Iterator[None]:
        """Time a "validation", "save" or "start" separately. It does not count as time/step."""
        self.bar.set_description_str(what)
        with self.eta.aside(what):
            yield
        self.bar.set_description_str("")

    def train(
        self, step: int, means: Mapping[str, float], lrs: Mapping[str, float], data_seconds: float
    ) -> None:
        """Report a log point: means by tag and the lr of each parameter group."""
        steps = step - self.logged_step
        per_step = (self.eta.training() - self.logged_at) / steps
        times = {"time/step": per_step, "time/data": data_seconds / steps}
        self.write(step, {**means, **{f"lr/{k}": v for k, v in lrs.items()}, **times})
        low, high = (f"{choose(lrs.values()):.1e}" for choose in (min, max))
        self.lr_shown = (low if low == high else f"{low}…{high}").ljust(len(self.lr_shown))
        eta = ("eta", duration(self.eta.left(step)))
        cells = [("lr", self.lr_shown), *_numbers("train", means), eta]
        optional = [("time", f"{per_step:.3f}"), ("data", f"{times['time/data']:.3f}")]
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
            optional.append(("mem", f"{peak / 2**30:.1f}G"))
        self._show(step, cells, optional, None)
        self.logged_at, self.logged_step = self.eta.training(), step

    def validation(self, step: int, values: Mapping[str, float], best: str | None) -> None:
        """Report a validation. `best` names the monitored value if it is the best so far."""
        blank = " " * (len(self.lr_shown) - 1)  # as wide as the lr, so that values are in columns
        self._show(step, [("val", blank), *_numbers("val", values)], [], best)
        if best:
            for sink in self.loggers:
                sink.new_best(step, {f"best/{best}": values[f"val/{best}"]})

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write values to `metrics.jsonl` and to every logger."""
        if self.metrics is not None:
            row = {"step": step, "epoch": self.plan.epoch(step), **values}
            self.metrics.write(to_json(row) + "\n")
        for sink in self.loggers:
            sink.scalars(step, values)

    def flush(self) -> None:
        """Hand everything logged so far to the operating system."""
        for sink in self.loggers:
            sink.flush()

    def _show(self, step: int, cells: list[Cell], optional: list[Cell], best: str | None) -> None:
        steps, epochs = self.plan.steps, self.plan.epoch(self.total_steps)
        epoch = self.plan.epoch(step)
        within = step - max(0, epoch - 1) * steps
        place = f"Epoch {epoch:{len(str(epochs))}}/{epochs} [{within:{len(str(steps))}}/{steps}]"
        row = partial(line, place, cells, optional, best)
        logger.info(row(0), extra={"line": row})

    def close(self) -> None:
        with ExitStack() as stack:  # close all, even if one fails
            for sink in self.loggers:
                stack.callback(sink.close)
            if self.metrics is not None:
                stack.callback(self.metrics.close)
            stack.callback(self.bar.close)


def _numbers(place: str, values: Mapping[str, float]) -> list[Cell]:
    """The values with tags place/key, the loss first."""
    own = {k.removeprefix(f"{place}/"): v for k, v in values.items() if k.startswith(f"{place}/")}
    keys = sorted(own, key=lambda key: key != "loss")
    return [(key, number(own[key]).ljust(NUMBER_WIDTH)) for key in keys]


class Eta:
    """Measures steps, validations and saves separately, and predicts the time that is left.

    The process starts after step `done` of `total`. `every` maps "validation" and "save" to their
    periods in steps. Until the first validation, each of its `validation_steps` counts as a step.
    """

    def __init__(
        self, done: int, total: int, every: Mapping[str, Periods], validation_steps: int
    ) -> None:
        self.total, self.every, self.validation_steps = total, every, validation_steps
        self._began, self._done = time.perf_counter(), done
        self._first_ended = 0.0
        self._is_aside = False
        self._seconds: dict[str, float] = defaultdict(float)
        self._count: dict[str, int] = defaultdict(int)

    def training(self) -> float:
        """The seconds that training steps have taken so far."""
        return time.perf_counter() - self._began - sum(self._seconds.values())

    def first_step_ended(self) -> None:
        """Leave out the first step from now on: it starts loader workers and may compile."""
        self._first_ended = self.training()

    @contextmanager
    def aside(self, what: str) -> Iterator[None]:
        """Time this block separately. An inner block counts towards the outer one."""
        began, is_inner, self._is_aside = time.perf_counter(), self._is_aside, True
        yield
        seconds = time.perf_counter() - began
        logger.debug(f"{what} took {seconds:.3f} s")
        if not is_inner:
            self._is_aside = False
            self._seconds[what] += seconds
            self._count[what] += 1

    def left(self, step: int) -> float:
        """The seconds from `step` until the run's end, with what is due after `step`."""
        steps, seconds = step - self._done, self.training()
        if steps > 1:
            steps, seconds = steps - 1, seconds - self._first_ended
        per_step = seconds / max(1, steps)
        left = per_step * (self.total - step)
        guess = {"validation": per_step * self.validation_steps, "save": 0.0}
        for what, periods in self.every.items():
            count = self._count[what]
            each = self._seconds[what] / count if count else guess[what]
            left += each * due(step, self.total, periods)
        return left


def due(first: int, last: int, periods: Periods) -> int:
    """Count the multiples of one or two periods (0: never) in [first, last]. `last` counts, too."""
    periods = [period for period in periods if period]

    def before(step: int) -> int:
        count = sum((step - 1) // period for period in periods)
        if len(periods) == 2:  # multiples of both count once
            count -= (step - 1) // math.lcm(*map(int, periods))
        return count

    return before(last) - before(first) + 1


@contextmanager
def profiled(
    wanted: bool, folder: Path, device: torch.device, steps: int
) -> Iterator[Callable[[], object]]:
    """Yield a function to call after each step. Measure a few steps of rank 0, if `wanted`.

    Writes a chrome trace to `profile/` and a table to `train.log`. `steps` are left in the run. The
    profiler skips some at first, and two more warm it up.
    """
    if not (wanted and is_main() and steps):
        yield lambda: None
        return
    skipped = min(5, steps // 4)
    warmup = min(2, (steps - skipped) // 2)
    count = min(5, steps - skipped - warmup)

    def write(done: Any) -> None:
        table = done.key_averages().table(f"self_{device.type}_time_total", row_limit=20)
        path = folder / "profile/trace.json"
        path.parent.mkdir(exist_ok=True)
        done.export_chrome_trace(str(path))
        logger.debug(f"Profile of {count} steps:\n{table}")
        logger.info(f"The profile is in train.log. Open {shown(path)} at ui.perfetto.dev.")

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # do not write to the terminal
    order = schedule(wait=skipped, warmup=warmup, active=count, repeat=1)
    with profile(schedule=order, on_trace_ready=write, record_shapes=True) as running:
        yield running.step
