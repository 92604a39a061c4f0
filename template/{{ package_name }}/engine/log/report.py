"""What a run shows and keeps of its values: console lines, `metrics.jsonl`, loggers, the bar."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..api import Logger
from ..machine.distributed import is_main
from ..run.metrics import MetricsFile
from ..text import duration, logger, number, number_width
from .console import Columns, Line, progress_bar
from .timing import Eta, Timing

if TYPE_CHECKING:
    from ..build.parts import Parts


class Report:
    """Of the main process; other processes have one that keeps quiet."""

    def __init__(self, parts: Parts, folder: Path, timing: Timing) -> None:
        config, plan = parts.config, parts.train.plan
        self.parts, self.folder, self.timing = parts, folder, timing
        self.plan, self.total_steps, self.device = plan, parts.total_steps, parts.device
        self.digits = config.log.digits
        self.rates, self.times = Columns(), Columns()
        self.values = Columns(number_width(self.digits))
        self.validated = Columns(number_width(self.digits))
        self.loggers: list[Logger] = []
        self.metrics: MetricsFile | None = None
        self.bar = progress_bar(0, 0, shown=False)
        self.eta = Eta(0, self.total_steps, {}, 0)
        self.clock, self.clock_step = 0.0, 0

    def open(self, done: int, validates_again: bool) -> None:
        """Open files, loggers and the bar. `done` steps are behind the run. `validates_again`: a
        validation of the last step that was logged will be logged again."""
        parts, config = self.parts, self.parts.config
        intervals = {"save": parts.save_intervals}
        if parts.val is not None:
            intervals["validation"] = parts.val_intervals
        validation_steps = parts.val.plan.steps if parts.val is not None else 0
        self.eta = Eta(done, self.total_steps, intervals, validation_steps)
        if is_main():
            self.metrics = MetricsFile(self.folder, done, validates_again)
            self.loggers = parts.open_loggers(self.folder, done + 1)
        is_shown = is_main() and config.log.level in ("debug", "info")
        self.bar = progress_bar(self.total_steps, done, is_shown)
        self.restart_clock(done)

    def restart_clock(self, step: int) -> None:
        self.clock, self.clock_step, self.timing.data_seconds = self.eta.training(), step, 0.0

    def stepped(self) -> None:
        """To be called after every step."""
        self.eta.stepped()
        self.bar.update()

    @contextmanager
    def aside(self, what: str) -> Iterator[None]:
        """The block is a "validation", a "save" or what happens once: its time is no step's."""
        self.bar.set_description_str(what)
        began = time.perf_counter()
        with self.eta.aside(what):
            yield
        logger.debug(f"{what} took {time.perf_counter() - began:.3f} s")
        self.bar.set_description_str("")

    def train(
        self,
        step: int,
        window: Mapping[str, float],
        epoch: Mapping[str, float],
        lrs: Mapping[str, float],
    ) -> None:
        """Report a log point: its values, an epoch's means where one ends, each group's learning rate."""
        steps = max(1, step - self.clock_step)
        times = {
            "time/step": (self.eta.training() - self.clock) / steps,
            "time/data": self.timing.data_seconds / steps,
        }
        tagged = {f"lr/{name}": lr for name, lr in lrs.items()}
        self.write(step, {**window, **epoch, **tagged, **times})
        low, high = (f"{f(lrs.values()):.1e}" for f in (min, max))
        shown = {
            "eta": duration(self.eta.left(step)),
            "time": f"{times['time/step']:.3f}",
            "data": f"{times['time/data']:.3f}",
        }
        if self.device.type == "cuda":
            shown["mem"] = f"{torch.cuda.max_memory_allocated(self.device) / 2**30:.1f}G"
        eta, *rest = self.times.align(shown)
        cells = self.rates.align({"lr": low if low == high else f"{low}…{high}"})
        cells += self.values.align(self.numbers(window))
        self.say(Line(self.place(step), [*cells, eta], rest))
        self.restart_clock(step)

    def validation(self, step: int, values: Mapping[str, float], best: str | None) -> None:
        """`best` names the value that is the best so far."""
        # As wide as the cell of the rate, so that equal columns stand below each other.
        cells = self.rates.align({"lr": ""})
        cells = [("val", " " * (len(cells[0][1]) - 1))] if cells else [("val", "")]
        cells += self.validated.align(self.numbers(values))
        self.say(Line(self.place(step), cells, [], f"new best {best}" if best else ""))

    def numbers(self, values: Mapping[str, float]) -> dict[str, str]:
        """As the console shows them, by the part of each tag after the slash; the loss first."""
        shown = {tag.split("/", 1)[1]: number(v, self.digits) for tag, v in values.items()}
        return {"loss": shown["loss"], **shown} if "loss" in shown else shown

    def say(self, line: Line) -> None:
        logger.info(line.plain(), extra={"line": line})

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """To `metrics.jsonl` and every logger."""
        if self.metrics is None:
            return
        self.metrics.write({"step": step, "epoch": self.epoch(step), **values})
        for sink in self.loggers:
            sink.scalars(step, values)

    def flush(self) -> None:
        """Hands everything logged so far to the operating system."""
        for sink in self.loggers:
            sink.flush()

    def epoch(self, step: int) -> int:
        """The epoch of the last of `step` steps, from 1; 0 before the first."""
        return -(-step // self.plan.steps)

    def place(self, step: int) -> str:
        steps, epochs = self.plan.steps, -(-self.total_steps // self.plan.steps)
        within = step - max(0, self.epoch(step) - 1) * steps
        return f"Epoch {self.epoch(step):{len(str(epochs))}}/{epochs} [{within:{len(str(steps))}}/{steps}]"

    def close(self) -> None:
        with ExitStack() as stack:  # each is closed, whatever becomes of the others
            for sink in self.loggers:
                stack.callback(sink.close)
            if self.metrics is not None:
                stack.callback(self.metrics.close)
            stack.callback(self.bar.close)
