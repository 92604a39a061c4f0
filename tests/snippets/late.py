"""Batches and checkpoints on a GPU that works as late as it may. Prints how many of them are wrong.

Usage: late.py batches|saves [OMIT]. OMIT is a method, such as torch.cuda:Stream.wait_event, which then does nothing.
"""

import importlib
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from digits.engine.batches.loader import Loader
from digits.engine.batches.plan import Plan
from digits.engine.datasets.arrays import ArrayImages
from digits.engine.rng import Domain
from digits.engine.run.saver import Saver


def batches():
    """Read batches while the copies of others wait, and compare them with those on the CPU."""
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (2000, 16, 16, 3), dtype=np.uint8), draw.integers(0, 10, 2000)
    data, plan = ArrayImages(images, labels, 0.5, 0.25), Plan(2000, 64, 0)
    here, there = (Loader(data, plan, None, Domain.SAMPLE, 0, torch.device(d)) for d in ("cpu", "cuda:0"))
    expected = list(here.read(0, 60))
    # A copy within the GPU stands for a step: its result is looked at after the last batch was read.
    computed = [images.clone() for images, _ in there.read(0, 60)]
    return [not torch.equal(a.cpu(), b) for a, (b, _) in zip(computed, expected, strict=True)]


def saves():
    """Save weights that the next step changes at once, and read the files."""
    folder = Path(tempfile.mkdtemp())
    saver, host = Saver(folder, keep_last=None), torch.zeros(1 << 16).pin_memory()
    weights = torch.zeros(1 << 16).cuda()
    wrong = []
    for step in range(1, 6):
        host.fill_(step)
        weights.copy_(host)
        saver.save({"step": step, "model": {"weights": weights}}, step)
        host.fill_(-1)
        weights.copy_(host, non_blocking=True)  # stands for the next step: it is asked for after the copy
        saver.wait()
        saved = torch.load(folder / f"step-{step:08d}.pt", weights_only=True)["model"]["weights"]
        wrong.append(not (saved == step).all())
    return wrong


if __name__ == "__main__":
    if sys.argv[2:]:
        owner, _, method = sys.argv[2].rpartition(".")
        module, _, kind = owner.partition(":")
        setattr(getattr(importlib.import_module(module), kind), method, lambda *args: None)
    wrong = {"batches": batches, "saves": saves}[sys.argv[1]]()
    print(f"{sum(wrong)} of {len(wrong)} are wrong")
