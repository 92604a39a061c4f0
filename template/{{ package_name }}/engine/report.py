"""What a run shows and keeps of its values: console lines, `metrics.jsonl`, loggers, the bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from tqdm import tqdm

from .api import Logger
from .data import Plan
from .distributed import is_main
from .log import MetricsFile, columns, duration, logger


class Report:
    """Of the main process; other processes have one that keeps quiet."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        total_steps: int,
        device: torch.device,
        done: int,
        validate_again: bool,
        bar: bool,
        digits: int = 4,
    ) -> None:
        self.plan, self.total_steps, self.device = plan, total_steps, device
        self.digits = digits
        self.first_step, self.started = done, time.perf_counter()
        self.loggers: list[Logger] = []
        self.metrics = None
        if is_main():
            self.metrics = MetricsFile(folder / "metrics.jsonl", done, validate_again)
        self.bar = tqdm(
            total=total_steps,
            initial=done,
            unit="step",
            leave=False,
            dynamic_ncols=True,
            disable=not (bar and is_main() and sys.stderr.isatty()),
        )
        self.restart_clock(done)

    def restart_clock(self, step: int) -> None:
        self.clock, self.clock_step, self.data_seconds = time.perf_counter(), step, 0.0

    def train(
        self,
        step: int,
        window: Mapping[str, float],
        epoch: Mapping[str, float],
        rates: Mapping[str, float],
    ) -> None:
        """A log point: the window's means, an epoch's where one ends, each group's rate."""
        now = time.perf_counter()
        steps = max(1, step - self.clock_step)
        times = {
            "time/step": (now - self.clock) / steps,
            "time/data": self.data_seconds / steps,
        }
        lrs = {f"lr/{name}": lr for name, lr in rates.items()}
        self.write(step, {**window, **epoch, **lrs, **times})
        per_step = (now - self.started) / max(1, step - self.first_step)
        low, high = min(rates.values()), max(rates.values())
        lr = f"{low:.1e}" if low == high else f"{low:.1e}…{high:.1e}"
        line = f"{self.place(step)}  lr {lr}  {columns(window, self.digits)}"
        line += f"  eta {duration(per_step * (self.total_steps - step))}"
        line += f"  time {times['time/step']:.3f}  data {times['time/data']:.3f}"
        if self.device.type == "cuda":
            line += f"  mem {torch.cuda.max_memory_allocated(self.device) / 2**30:.1f}G"
        logger.info(line)
        self.restart_clock(step)

    def validation(self, step: int, values: Mapping[str, float], best: str | None) -> None:
        """`best` names the value that is the best so far."""
        line = f"{self.place(step)}  val    {columns(values, self.digits)}"
        line += f"  best {best}" if best else ""
        logger.info(line, extra={"colour": "\x1b[32m" if best else ""})

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
        self.bar.close()
        if self.metrics is not None:
            self.metrics.close()
        for sink in self.loggers:
            sink.close()
