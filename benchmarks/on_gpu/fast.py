"""What training costs on a GPU, beside loops written by hand. One measurement at a time."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from ..common import interleaved, per_call, project, ratio, shown, temporary
from ..steps import HERE, SIZES
from ..workers import Worker, in_turns
from .answers import Answers

BY_HAND = {
    "bare: data on the device, channels_last, fused SGD": "bare resnet18 32",
    "bare, compiled": "bare resnet18 32 compile",
    "usual script: DataLoader, fp32, `.item()` in every step": "naive resnet18 32",
}


class Fast:
    """Each method is a part."""

    def __init__(self, answers: Answers, device: str, small: bool) -> None:
        self.answers, self.device, self.small = answers, device, small

    def _race(self, title: str, workers: list[Worker], batch: int, rounds: int) -> dict[str, list[float]]:
        """Measure the contestants in turn. Return the seconds of a step, or of what their answers count."""

        def told(name: str, answer: Sequence[float]) -> None:  # the limit may end the race
            self.answers.say("Single measurements", of=title, what=name, seconds=answer[0])

        turns, failed = in_turns(workers, 1 if self.small else rounds, told)
        seconds = {name: [answer[0] for answer in answers] for name, answers in turns.items()}
        base = workers[0].name
        for worker in workers:
            if worker.name in failed:
                self.answers.say(title, what=worker.name, time=f"did not run: {failed[worker.name]}")
                continue
            values, peak = seconds[worker.name], max(answer[2] for answer in turns[worker.name])
            speed = ratio(seconds[base], values) if base in seconds else ""
            rate = f"{batch / statistics.median(values):,.0f}"
            self.answers.say(
                title,
                what=worker.name,
                time=shown(values),
                **{"samples per second": rate, "speed to the first row": speed, "peak MiB": f"{peak / 2**20:,.0f}"},
            )
        return seconds

    def steps(self) -> None:
        for size, settings in SIZES.items():
            settings = {**settings, "device": self.device, **({"steps": 20} if self.small else {})}
            contestants = [c for c in HERE if c.module in ("bare", "logged", "ours")]
            workers = [Worker(c.label, c.module, settings, sys.executable, c.arguments) for c in contestants]
            self._race(f"{size.capitalize()}: goal 0.97× for ours", workers, settings["batch"], 6)

    def _pictures(self, model: str, side: int, batch: int, *more: str) -> list[str]:
        precision = "bf16" if self.device == "cuda" else "fp32"
        return [
            *("data._target_=benchmarks.peers.pictures.Pictures", f"+data.side={side}", f"model={model}"),
            *(f"batch_size={batch}", "optimizer=sgd", "lr=0.01", f"precision={precision}"),
            *("channels_last=true", "scheduler=constant", *more),
        ]

    def _settings(self, batch: int, steps: int) -> dict[str, Any]:
        return {"inputs": 0, "hidden": [], "batch": batch, "steps": steps, "device": self.device}

    def resnet18(self) -> None:
        batch = 2 if self.small else 512
        settings, own = self._settings(batch, 2 if self.small else 48), self._pictures("resnet18", 32, batch)
        choices = {
            "ours, every default on": own,
            "ours, `data_on_device=true`": [*own, "data_on_device=true"],
            "ours, `experiment=fast`": [*own, "experiment=fast"],
            "ours, `experiment=fast compile=false`": [*own, "experiment=fast", "compile=false"],
        }
        workers = [
            *(Worker(name, "images", settings, arguments=kind.split()) for name, kind in BY_HAND.items()),
            *(Worker(name, "ours_images", settings, arguments=overrides) for name, overrides in choices.items()),
        ]
        title = f"ResNet-18 on pictures of 3×32×32, batch {batch}: goals 0.97× for ours, 5× the default for fast"
        self._race(title, workers, batch, 4)

    def epochs(self) -> None:
        batch = 2 if self.small else 512
        settings, own = self._settings(batch, 0 if self.small else 48), self._pictures("resnet18", 32, batch)
        choices = {"ours, every default on": own, "ours, `experiment=fast`": [*own, "experiment=fast"]}
        workers = [
            Worker("bare, compiled", "images", settings, arguments=["epochs", "resnet18", "32", "compile"]),
            *(Worker(name, "ours_epochs", settings, arguments=overrides) for name, overrides in choices.items()),
        ]
        samples = (settings["steps"] + 50) * batch
        self._race(f"An epoch of {samples:,} pictures, with validation on a fifth as many", workers, samples, 3)

    def resnet50(self) -> None:
        if self.answers.left() < 100 and not self.small:
            self.answers.say("ResNet-50", what="left out", time="no time is left")
            return
        batch, side = (2, 64) if self.small else (256, 224)
        settings = self._settings(batch, 1 if self.small else 20)
        own = self._pictures("resnet50", side, batch, "compile=true", "deterministic=false")
        fixed = ["fixed", "resnet50", str(side), "compile"]
        workers = [
            Worker("bare model loop: one batch, again and again", "images", settings, arguments=fixed),
            Worker("ours", "ours_images", settings, arguments=own),
        ]
        title = f"ResNet-50 at {side} pixels, bf16, channels_last, compiled, batch {batch}"
        seconds = self._race(title, workers, batch, 3)
        if "ours" in seconds and not self.small:
            flops = 3 * 2 * 4.09e9 * batch / statistics.median(seconds["ours"])  # the backward pass takes two of three
            peak = matmul_peak()
            title = "ResNet-50: share of the matrix peak"
            self.answers.say(title, ours=f"{flops / peak:.0%}", peak=f"{peak / 1e12:.0f} TFLOP/s")

    def saving(self) -> None:
        project()
        from digits.engine.run.saver import Saver

        count = 4 if self.small else 100
        state = {"step": 1, "model": {f"layer{n}": torch.randn(1024, 1024).to(self.device) for n in range(count)}}
        folder = temporary()
        saver = Saver(folder, keep_last=1)

        def wait() -> None:
            if self.device == "cuda":
                torch.cuda.synchronize()

        def waits() -> float:
            wait()
            began = time.perf_counter()
            saver.save(state, 1)
            wait()  # the next step must come after the copies
            waited = time.perf_counter() - began
            saver.wait()
            return waited

        def plain() -> float:
            wait()
            return per_call(lambda: torch.save(state, folder / "plain.pt"), 1)()

        theirs, ours = interleaved([plain, waits], 2 if self.small else 10)
        saver.close()
        cells = {"torch.save": shown(theirs), "ours": shown(ours), "ratio": ratio(ours, theirs)}
        self.answers.say(f"A checkpoint of {4 * count} MiB: how long training waits", **cells)


def matmul_peak() -> float:
    """Measure the floating-point operations per second of a matrix product in bf16."""
    size = 8192
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for turn in range(8):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(10):
            a @ b
        torch.cuda.synchronize()
        if turn:
            seconds.append((time.perf_counter() - began) / 10)
    return 2 * size**3 / statistics.median(seconds)
