"""train.py that counts what makes the host wait for the GPU, by the part of the loop, and notes tensors on the host.

The result is one line of JSON: {part: {"calls": …, "launches": …, "waits": …, "pageable": …, "pinned": …}}.
"""

import contextlib
import ctypes
import json
import os
import sys
from collections import Counter, defaultdict

import torch
from digits.engine import signals
from digits.engine.api import Mean
from digits.engine.launch import launch
from digits.engine.loop import Loop
from digits.engine.machine.device import map_tensors
from digits.engine.train import train

RUNTIME = ctypes.CDLL(os.environ["LD_PRELOAD"])
KINDS = ("launches", "waits", "pageable", "pinned")
parts = defaultdict(Counter)
on_host = set()


def counts():
    numbers = (ctypes.c_long * len(KINDS))()
    RUNTIME.stand_in_counts(numbers)
    return Counter(dict(zip(KINDS, numbers, strict=True)))


@contextlib.contextmanager
def part(name):
    """Count for this part of the loop alone, and not for the part around it."""
    before, inside = counts(), Counter()
    outer.append(inside)
    yield
    outer.pop()
    spent = counts()
    spent.subtract(before)
    if outer:
        outer[-1].update(spent)
    spent.subtract(inside)
    parts[name].update({**spent, "calls": 1})


outer = []


def expect_on_gpu(what, value):
    map_tensors(lambda tensor: tensor.is_cuda or on_host.add(what), value)


class Counted(Loop):
    def fit(self):
        for name in ("training_step", "validation_step"):
            setattr(self.parts.task, name, self.watched(name, getattr(self.parts.task, name)))
        super().fit()

    def watched(self, name, step):
        def watched(model, batch, ctx):
            expect_on_gpu(f"batch of {name}", batch)
            values = step(model, batch, ctx)
            if name == "training_step" and "COUNTED" in os.environ:
                values = {**values, "loss": Mean(values["loss"], torch.tensor(3.0))}
            return values

        return watched

    def training_step(self, batches):
        with part("step" if self.step >= 3 else "start"):  # the first steps set things up
            super().training_step(batches)

    def log(self, epoch_ends):
        with part("log"):
            super().log(epoch_ends)

    def validate(self):
        with part("validation"):
            super().validate()
        p = self.parts
        for what in ("model", "loss", "averaged", "metrics"):
            owners = getattr(p, what)
            owners = getattr(owners, "model", owners)
            for owner in owners.values() if isinstance(owners, dict) else [owners]:
                if owner is not None:
                    expect_on_gpu(what, [*owner.parameters(), *owner.buffers(), getattr(owner, "metric_state", {})])
        expect_on_gpu("optimizer", [dict(state) for state in p.optimizer.state.values()])

    def save(self, best=False):
        with part("save"):
            super().save(best)
            self.saver.close()


if __name__ == "__main__":
    signals.install()
    code = launch(lambda job: train(job, Counted))
    print(json.dumps({**parts, "on the host": sorted(on_host)}))
    sys.exit(code)
