"""Where the time of a few steps goes: `profile=true`."""

import os
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from ..machine.distributed import is_main
from ..paths import shown
from ..text import logger


class Profiler:
    """Writes a chrome trace to `profile/` and a table to `train.log`, of a few steps of rank 0.

    Without `wanted` it does nothing. `steps` are left in the run. The profiler skips some at first,
    and two more warm it up.
    """

    def __init__(self, wanted: bool, folder: Path, device: torch.device, steps: int) -> None:
        self.folder, self.device = folder / "profile", device
        self.profile: Any = None
        self.count = 0
        if not (wanted and is_main() and steps):
            return
        skipped = min(5, steps // 4)
        warmup = min(2, (steps - skipped) // 2)
        self.count = min(5, steps - skipped - warmup)
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # do not write to the terminal
        activities = [ProfilerActivity.CPU]
        activities += [ProfilerActivity.CUDA] if device.type == "cuda" else []
        self.profile = profile(
            activities=activities,
            schedule=schedule(wait=skipped, warmup=warmup, active=self.count, repeat=1),
            on_trace_ready=self._write,
            record_shapes=True,
        )
        self.profile.start()

    def step(self) -> None:
        """Call this after each step."""
        if self.profile is not None:
            self.profile.step()

    def close(self) -> None:
        if self.profile is not None:
            self.profile.stop()
            self.profile = None

    def _write(self, profiled: Any) -> None:
        place = "cuda" if self.device.type == "cuda" else "cpu"
        table = profiled.key_averages().table(f"self_{place}_time_total", row_limit=20)
        self.folder.mkdir(exist_ok=True)
        path = self.folder / "trace.json"
        profiled.export_chrome_trace(str(path))
        logger.debug(f"Profile of {self.count} steps:\n{table}")
        logger.info(
            f"Profiled {self.count} steps. The table is in train.log, the trace in {shown(path)}. "
            "Open it at ui.perfetto.dev or in chrome://tracing."
        )
