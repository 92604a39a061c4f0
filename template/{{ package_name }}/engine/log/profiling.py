"""Where the time of a few steps goes: `profile=true`."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import profile, schedule

from ..machine.distributed import is_main
from ..paths import shown
from ..text import logger


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
