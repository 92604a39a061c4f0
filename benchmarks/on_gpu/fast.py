"""What training costs on a GPU, beside loops written by hand. One measurement at a time."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

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


class Race(NamedTuple):
    title: str
    contestants: Mapping[str, tuple[str, Sequence[str]]]
    """A module of benchmarks.peers and its arguments, by the label. The first is what others are compared with."""
    settings: dict[str, Any]
    samples: int
    """What an answer counts: samples of a step, or of an epoch."""
    rounds: int

    def compiled(self) -> list[tuple[str, Sequence[str]]]:
        """Return the contestants whose models are compiled."""
        kinds = {"compile", "compile=true", "experiment=fast"}
        return [c for c in self.contestants.values() if kinds & {*c[1]} and "compile=false" not in c[1]]


class Fast:
    """Each public method without arguments is a part."""

    def __init__(self, answers: Answers, device: str, small: bool) -> None:
        self.answers, self.device, self.small = answers, device, small
        self.limit = None if small else 100.0
        """Seconds of a turn. The first one of a model that is compiled needs most of them."""
        self.races = {"resnet18": self._resnet18(), "epochs": self._epochs(), "resnet50": self._resnet50()}

    def ahead(self, parts: Sequence[str]) -> list[Callable[[], None]]:
        """Return jobs that compile the models of these parts, so that torch finds them in its cache on the disk."""
        races = [self.races[part] for part in parts if part in self.races]
        return [partial(self._compile, race, *contestant) for race in races for contestant in race.compiled()]

    def _compile(self, race: Race, module: str, arguments: Sequence[str]) -> None:
        worker = Worker(module, module, {**race.settings, "steps": 3, "margin": 1}, arguments=arguments)
        with self._running(f"ahead {worker.process.pid}", [worker]):
            try:
                worker.turn(self.limit)
            except RuntimeError as error:
                self.answers.say("Compiled ahead", of=race.title, what=" ".join(arguments), error=error)
            finally:
                worker.close()

    @contextmanager
    def _running(self, title: str, workers: list[Worker]) -> Iterator[None]:
        """End these processes with this one, and keep what they print."""
        for worker in workers:
            name = re.sub(r"[^-+=.a-zA-Z0-9]+", " ", f"{title} {worker.name}")
            os.link(worker.log.name, self.answers.logs / f"{name}.txt")
        groups = {worker.process.pid for worker in workers}
        self.answers.running |= groups
        try:
            yield
        finally:
            self.answers.running -= groups

    def _race(self, race: Race) -> dict[str, list[float]]:
        """Measure the contestants in turn. Return the seconds of a step, or of what their answers count."""
        title, rounds = race.title, 1 if self.small else race.rounds

        def told(name: str, answer: Sequence[float]) -> None:  # the limit may end the race
            self.answers.say("Single measurements", of=title, what=name, seconds=answer[0])

        workers = [
            Worker(name, module, race.settings, arguments=arguments)
            for name, (module, arguments) in race.contestants.items()
        ]
        with self._running(re.split("[:,]", title)[0], workers):
            turns, failed = in_turns(workers, rounds, told, self.limit, lambda: self.answers.left() < 15)
        seconds = {name: [answer[0] for answer in answers] for name, answers in turns.items()}
        base = workers[0].name
        for name in race.contestants:
            if name in failed:
                self.answers.say(title, what=name, time=f"did not run: {failed[name]}")
                continue
            values, peak = seconds[name], max(answer[2] for answer in turns[name])
            speed = ratio(seconds[base], values) if base in seconds else ""
            rate = f"{race.samples / statistics.median(values):,.0f}"
            self.answers.say(
                title,
                what=name,
                time=shown(values),
                **{"samples per second": rate, "speed to the first row": speed, "peak MiB": f"{peak / 2**20:,.0f}"},
            )
        return seconds

    def _pictures(self, model: str, side: int, batch: int, *more: str) -> list[str]:
        precision = "bf16" if self.device == "cuda" else "fp32"
        return [
            *("data._target_=benchmarks.peers.pictures.Pictures", f"+data.side={side}", f"model={model}"),
            *(f"batch_size={batch}", "optimizer=sgd", "lr=0.01", f"precision={precision}"),
            *("channels_last=true", "scheduler=constant", *more),
        ]

    def _settings(self, batch: int, steps: int, margin: int) -> dict[str, Any]:
        """Settings of an epoch whose validation, on a fifth as many pictures, has whole batches."""
        steps, margin = (3, 1) if self.small else (steps, margin)
        return {"inputs": 0, "hidden": [], "batch": batch, "steps": steps, "margin": margin, "device": self.device}

    def _resnet18(self) -> Race:
        batch = 2 if self.small else 512
        own = self._pictures("resnet18", 32, batch)
        contestants = {
            **{name: ("images", kind.split()) for name, kind in BY_HAND.items()},
            "ours, every default on": ("ours_images", own),
            "ours, `data_on_device=true`": ("ours_images", [*own, "data_on_device=true"]),
            "ours, `experiment=fast`": ("ours_images", [*own, "experiment=fast"]),
            "ours, `experiment=fast compile=false`": ("ours_images", [*own, "experiment=fast", "compile=false"]),
        }
        title = f"ResNet-18 on pictures of 3×32×32, batch {batch}: goals 0.97× for ours, 5× the default for fast"
        return Race(title, contestants, self._settings(batch, 80, 10), batch, 4)

    def _epochs(self) -> Race:
        batch = 2 if self.small else 512
        own, settings = self._pictures("resnet18", 32, batch), self._settings(batch, 80, 10)
        contestants = {
            "bare, compiled": ("images", ["epochs", "resnet18", "32", "compile"]),
            "ours, every default on": ("ours_epochs", own),
            "ours, `experiment=fast`": ("ours_epochs", [*own, "experiment=fast"]),
        }
        samples = (settings["steps"] + 2 * settings["margin"]) * batch
        title = f"An epoch of {samples:,} pictures, with validation on a fifth as many"
        return Race(title, contestants, settings, samples, 3)

    def _resnet50(self) -> Race:
        batch, side = (2, 64) if self.small else (256, 224)
        # A thread of the host takes longer to cut and normalise these pictures than the GPU takes for a step.
        own = self._pictures("resnet50", side, batch, "compile=true", "deterministic=false", "data_on_device=true")
        contestants = {
            "bare model loop: one batch, again and again": ("images", ["fixed", "resnet50", str(side), "compile"]),
            "ours, `data_on_device=true`": ("ours_images", own),
        }
        title = f"ResNet-50 at {side} pixels, bf16, channels_last, compiled, batch {batch}"
        return Race(title, contestants, self._settings(batch, 20, 5), batch, 3)

    def steps(self) -> None:
        for size, given in SIZES.items():
            settings: dict[str, Any] = {**given, "device": self.device, **({"steps": 20} if self.small else {})}
            contestants = {c.label: (c.module, c.arguments) for c in HERE if c.module in ("bare", "logged", "ours")}
            title = f"{size.capitalize()}: goal 0.97× for ours"
            self._race(Race(title, contestants, settings, settings["batch"], 6))

    def resnet18(self) -> None:
        self._race(self.races["resnet18"])

    def epochs(self) -> None:
        self._race(self.races["epochs"])

    def resnet50(self) -> None:
        race = self.races["resnet50"]
        seconds = self._race(race)
        if (ours := seconds.get("ours, `data_on_device=true`")) and not self.small:
            flops = 3 * 2 * 4.09e9 * race.samples / statistics.median(ours)  # the backward pass takes two of three
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

        theirs, ours = interleaved([plain, waits], 2 if self.small else 5)
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
