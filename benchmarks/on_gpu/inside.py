"""What a process of a rendered project learns about a few of its steps. Prints a line of JSON for each answer.

python -m benchmarks.on_gpu.inside waits OVERRIDE …              host waits by the part of the loop, peak memory
python -m benchmarks.on_gpu.inside repeats OVERRIDE … / OVERRIDE …   whether three steps repeat bit for bit
"""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from digits.engine import signals
from digits.engine.launch import compose, launch
from digits.engine.loop import Loop, Steps
from digits.engine.run.facts import weights_sha256
from digits.engine.setup import build_parts
from digits.engine.train import train

FIRST = 3
"""The first steps set things up."""

part = ["before or after"]
waits: Counter[str] = Counter()


def note(message: Any, category: type, filename: str, line: int, *more: object) -> None:
    if "called a synchronizing" in str(message):
        mine = [f for f in traceback.extract_stack() if "/digits/" in f.filename]
        waits[f"{part[-1]} {Path(mine[-1].filename).name}:{mine[-1].lineno}" if mine else part[-1]] += 1


def named(name: str) -> Callable[..., Any]:
    """Return a method of the loop that counts its waits under its own name."""

    def method(self: Any, *arguments: Any, **more: Any) -> None:
        part.append(name)
        try:
            getattr(super(Watched, self), name)(*arguments, **more)
        finally:
            part.pop()

    return method


class Watched(Loop):
    log, validate, save = named("log"), named("validate"), named("save")

    def training_step(self, batches: Iterator[Any]) -> None:
        if self.step == FIRST and self.parts.device.type == "cuda":
            warnings.showwarning = note  # the start of a run sets it, too
            torch.cuda.set_sync_debug_mode("warn")
        part.append("step")
        super().training_step(batches)
        part.pop()


def count_waits(overrides: list[str]) -> int:
    warnings.simplefilter("always")
    sys.argv[1:] = ["logger=none", "log.curves=false", "log.level=warning", "limit_val_batches=2", *overrides]
    signals.install()
    code = launch(lambda job: train(job, Watched))
    on_gpu = torch.cuda.is_initialized()
    peak = torch.cuda.max_memory_allocated() >> 20 if on_gpu else 0
    print(json.dumps({"waits": dict(sorted(waits.items())), "peak": peak, "code": code}), flush=True)
    return code


def three_steps(overrides: list[str]) -> str:
    parts = build_parts(compose("log.level=error", *overrides))
    parts.scheduler.begin(parts.optimizer, 0)
    parts.model.train()
    steps = Steps(parts)
    batches = parts.train.read(0, 3)
    for _ in range(3):
        steps.training_step(batches)
    return weights_sha256(parts.model.state_dict())


def repeats(overrides: list[str]) -> None:
    for choice in " ".join(overrides).split(" / "):
        try:
            hashes = {three_steps(choice.split()) for _ in range(3)}
            answer = {"repeats": len(hashes) == 1}
        except Exception as error:
            answer = {"error": str(error).splitlines()[0]}
        print(json.dumps({"what": choice, **answer}), flush=True)


if __name__ == "__main__":
    kind, *given = sys.argv[1:]
    sys.exit(count_waits(given) if kind == "waits" else repeats(given))
