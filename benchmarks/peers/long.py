"""One long run of the rendered project. It reports its costs and its memory at given steps."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from digits.engine.loop import Loop

from .ours import begin
from .turns import TURNS

MARKS = json.loads(os.environ["BENCHMARK"])["marks"]


class Watched(Loop):
    """Measure the steps before each mark and their log points. Answer at the marks."""

    clock = points = 0.0
    count = since = 0

    def log(self, *args: object, **named: object) -> None:
        began = time.process_time()
        super().log(*args, **named)  # type: ignore[arg-type]
        self.points += time.process_time() - began
        self.count += 1

    def after_step(self) -> None:
        if self.step == 1 or self.step + 1000 in MARKS:
            self.clock, self.points, self.count, self.since = time.process_time(), 0.0, 0, self.step
        elif self.step in MARKS:
            seconds = (time.process_time() - self.clock) / (self.step - self.since)
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            lines = (self.run.folder / "metrics.jsonl").stat().st_size
            TURNS.answer([seconds, self.points / max(1, self.count), pages * os.sysconf("SC_PAGE_SIZE"), lines])
            TURNS.wait()
        super().after_step()


TURNS.step = lambda number=None: None  # type: ignore[method-assign] - marks replace turns
begin(Watched)
