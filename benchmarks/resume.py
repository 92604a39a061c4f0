"""What exact resume costs: keyed randomness and saving. growth.py measures reaching a batch."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator

import numpy as np
import torch

from .common import Table, interleaved, per_call, ratio, shown, temporary


def run(options: argparse.Namespace) -> Iterator[Table]:
    for table in (_seeding, _saving, _beside):
        yield table(options.quick)


def _seeding(quick: bool) -> Table:
    from digits.engine import rng

    key = rng.make_key(0, rng.Domain.SAMPLE, 1)
    counter = iter(range(1 << 60))

    def seed_next() -> None:
        rng.seed_all(rng.fold_in(key, next(counter)))

    works = {
        "a sample, torch alone": lambda: torch.default_generator.manual_seed(rng.fold_in(key, next(counter))),
        "a sample or a step: torch, numpy and random": seed_next,
        "a step with MixUp: the same twice": lambda: (seed_next(), seed_next()),
        "for comparison: torch.manual_seed": lambda: torch.manual_seed(next(counter)),
        "for comparison: torch.manual_seed, np.random.seed, random.seed": lambda: (
            torch.manual_seed(next(counter)),
            np.random.seed(next(counter) & 0xFFFFFFFF),
            random.seed(next(counter)),
        ),
    }
    times = interleaved([per_call(work, 2000) for work in works.values()], 5 if quick else 25)
    table = Table("Keyed seeding", ["what", "time (middle half)"])
    table.rows = [(name, shown(seconds)) for name, seconds in zip(works, times, strict=True)]
    return table


def _state(mebibytes: int) -> dict[str, object]:
    """Return weights and the two moments of AdamW, as in a checkpoint."""
    weights = {f"layers.{n}.weight": torch.randn(512, 683) for n in range(max(1, mebibytes // 4))}
    moments = {
        name: {"step": torch.tensor(5.0), "exp_avg": torch.randn_like(w), "exp_avg_sq": torch.rand_like(w)}
        for name, w in weights.items()
    }
    return {"step": 5, "model": weights, "optimizer": moments}


def _saving(quick: bool) -> Table:
    from digits.engine.run import checkpoint
    from digits.engine.run.saver import Saver

    table = Table(
        "A checkpoint: how long training waits",
        ["state", "torch.save", "atomic, synced", "in a thread: wait", "ratio to torch.save", "until on the disk"],
        note="The state is copied to buffers that are kept. A thread then writes, syncs and renames the file. The "
        "first save also allocates the buffers, so it waits longer. `torch.save` neither syncs nor is atomic.",
    )
    for mebibytes in (1, 100) if quick else (1, 10, 100, 400):
        state = _state(mebibytes)
        folder = temporary()
        saver = Saver(folder, keep_last=1)
        whole: list[float] = []

        def threaded(saver: Saver = saver, state: dict = state, whole: list[float] = whole) -> float:
            began = time.perf_counter()
            saver.save(state, 1)
            waited = time.perf_counter() - began
            saver.wait()
            whole.append(time.perf_counter() - began)
            return waited

        plain, atomic, ours = interleaved(
            [
                lambda s=state, f=folder: torch.save(s, f / "plain.pt"),
                lambda s=state, f=folder: checkpoint.save(s, f / "atomic.pt"),
                threaded,
            ],
            4 if quick else 12,
        )
        cells = [shown(plain), shown(atomic), shown(ours), ratio(ours, plain), shown(whole[1:])]
        table.rows.append((f"{mebibytes} MiB", *cells))
        for path in folder.iterdir():
            path.unlink()
    return table


def _beside(quick: bool) -> Table:
    """Measure steps of a small network with and without a thread that writes."""
    from digits.engine.run.saver import Saver

    model = torch.nn.Sequential(torch.nn.Linear(512, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 10))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    images, labels = torch.randn(64, 512), torch.randint(10, (64,))
    state, folder = _state(100), temporary()
    saver = Saver(folder, keep_last=1)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    def alone() -> float:
        return per_call(step, 100)()

    def beside() -> float:
        saver.save(state, 1)
        steps, began = 0, time.perf_counter()
        while saver.thread is not None and saver.thread.is_alive():
            step()
            steps += 1
        seconds = time.perf_counter() - began
        saver.wait()
        return seconds / max(1, steps)

    times = interleaved([alone, beside], 4 if quick else 15)
    table = Table("Steps beside the writer (100 MiB)", ["step alone", "step while a checkpoint is written", "ratio"])
    table.rows = [(shown(times[0]), shown(times[1]), ratio(times[1], times[0]))]
    return table
