"""What all contestants share: the model, batches, optimizer, flags and the clock.

A worker trains epochs of `steps + 2 * margin` steps and calls `TURNS.step()` at the beginning of each step. The steps
in the middle of an epoch are timed. Then the worker reports and waits for its next turn. So the work at the end of an
epoch (validation, saving, progress bars) does not count.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import AdamW


class Turns:
    """The worker's side of the protocol: one line for each turn."""

    def __init__(self) -> None:
        settings = json.loads(os.environ["BENCHMARK"])
        self.inputs: int = settings["inputs"]
        self.hidden: list[int] = settings["hidden"]
        self.batch: int = settings["batch"]
        self.steps: int = settings["steps"]
        self.device = torch.device(settings["device"])
        self.folder = Path(settings["folder"])
        """An empty folder for what is logged."""
        self.margin: int = settings.get("margin", 25)
        """Steps at the start and at the end of an epoch that are not timed."""
        self.epoch = self.steps + 2 * self.margin
        """Steps of an epoch."""
        self.processes = int(os.environ.get("WORLD_SIZE", "1"))
        if self.processes > 1 and self.device.type == "cuda":
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(self.device)
        self.is_first = os.environ.get("RANK", "0") == "0"
        """Only the first process of a group reports and waits. The others wait for its gradients."""
        self.done = 0
        self.number = -1
        # Output of libraries must not mix with the answers.
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def step(self, number: int | None = None) -> None:
        """Call this at the beginning of each training step, or of each micro-batch with the step's number."""
        if number is not None:
            if number == self.number:
                return
            self.number = number
        place = self.done % self.epoch
        self.done += 1
        if place == self.margin:
            self._synchronize()
            self._began = (time.perf_counter(), time.process_time())
        elif place == self.margin + self.steps:
            self._synchronize()
            wall, cpu = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
            peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else 0
            self.answer([wall / self.steps, cpu / self.steps, peak])
            self.wait()

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def answer(self, value: object) -> None:
        if not self.is_first:
            return
        self._answers.write(json.dumps(value) + "\n")
        self._answers.flush()

    def wait(self) -> None:
        """Wait for the next turn. End the process if there is none."""
        if self.is_first and not sys.stdin.readline():
            os._exit(0)

    def flags(self) -> None:
        """Set the flags that the default project sets."""
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # older versions of torch need it
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.backends.cudnn.deterministic = True

    def model(self) -> nn.Module:
        from digits.engine.models.mlp import MLP

        torch.manual_seed(0)
        return MLP((self.inputs,), 10, self.hidden).to(self.device)

    def optimizer(self, model: nn.Module, kind: type[AdamW] = AdamW) -> AdamW:
        return kind(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True)

    def rows(self) -> tuple[Tensor, Tensor]:
        """Return the samples of an epoch, float32 [N, inputs] and int64 [N], the same for all."""
        draw = torch.Generator().manual_seed(0)
        count = self.epoch * self.batch * self.processes
        images = torch.randn(count, self.inputs, generator=draw)
        return images, torch.randint(10, (count,), generator=draw)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch, in a new order."""
        if self.done == 0:
            self._rows = tuple(tensor.to(self.device) for tensor in self.rows())
        images, labels = self._rows
        order = torch.randperm(len(images), device=self.device)[: self.epoch * self.batch]
        for start in range(0, len(order), self.batch):
            self.step()
            chosen = order[start : start + self.batch]
            yield images[chosen], labels[chosen]

    def dataset(self) -> torch.utils.data.IterableDataset:
        """Return `batches` as a data set, for libraries that need one."""
        return Batches(self.batches)


class Means:
    """Means of loss and accuracy over 50 steps, kept on the device until they are read."""

    def __init__(self) -> None:
        self.sums, self.step = [0.0, 0.0], 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> dict[str, float] | None:
        """Add a step. Return the two means after every 50 steps."""
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        self.sums = [self.sums[0] + loss.detach(), self.sums[1] + accuracy]
        self.step += 1
        if self.step % 50:
            return None
        sums, self.sums = self.sums, [0.0, 0.0]
        return {"train/loss": float(sums[0]) / 50, "train/acc": float(sums[1]) / 50}


class Batches(torch.utils.data.IterableDataset):
    def __init__(self, batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.batches()


TURNS = Turns()
EPOCHS = 1_000_000
"""All contestants train until they are stopped."""
