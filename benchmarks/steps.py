"""What a training step costs besides the computation, compared with bare loops and libraries."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from typing import NamedTuple

import torch

from . import environment
from .common import Bars, Table, ratio, shown
from .workers import Worker, in_turns


class Contestant(NamedTuple):
    label: str
    module: str
    package: str = ""
    arguments: tuple[str, ...] = ()


SIZES = {
    "a small step": {"inputs": 64, "hidden": [32], "batch": 16, "steps": 500},
    "a larger step": {"inputs": 784, "hidden": [512, 512], "batch": 128, "steps": 50},
}
BARE, OURS = "bare loop", "ours, every default on"
HERE = [
    Contestant(BARE, "bare"),
    Contestant("bare loop, with our optimizer step and reading", "bare", arguments=("short",)),
    Contestant("bare loop, means to TensorBoard every 50 steps", "logged"),
    Contestant("usual script: two `.item()`, two `add_scalar` a step", "naive"),
    Contestant("usual script, its tqdm bar shows the loss", "naive", arguments=("bar",)),
    Contestant("usual script, with bar and a default DataLoader", "naive", arguments=("bar", "loader")),
    Contestant(OURS, "ours"),
]
PEERS = [
    Contestant("Fabric, means every 50 steps", "fabric", "lightning"),
    Contestant("Ignite, means every 50 steps", "ignite", "pytorch-ignite"),
    Contestant("Accelerate, means every 50 steps", "accelerate", "accelerate"),
    Contestant("mmengine, default hooks", "mmengine", "mmengine"),
    Contestant("Lightning, its TensorBoard logger", "lightning", "lightning"),
    Contestant("Lightning, with bar and epoch means", "lightning", "lightning", ("bar",)),
]


def run(options: argparse.Namespace) -> Iterator[Table]:
    contestants = HERE if options.quick else [*HERE, *PEERS]
    for size in list(SIZES)[: 1 if options.quick else None]:
        yield _steps(size, contestants, 6 if options.quick else 30)


def _steps(size: str, contestants: list[Contestant], rounds: int) -> Table:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = {**SIZES[size], "device": device}
    workers: list[Worker] = []
    failed: dict[str, str] = {}
    for label, module, package, arguments in contestants:
        try:
            python = environment.install(package) if package else sys.executable
            workers.append(Worker(label, module, settings, python, arguments))
        except RuntimeError as error:
            failed[label] = str(error)
    answers, ended = in_turns(workers, rounds)
    failed |= ended
    wall = {label: [answer[0] for answer in turns] for label, turns in answers.items()}
    cpu = {label: [answer[1] for answer in turns] for label, turns in answers.items()}
    bare = statistics.median(wall[BARE])
    counted = cpu if device == "cpu" else wall  # CPU time ignores other processes on the machine
    unit = "CPU time" if device == "cpu" else "time"
    added = {
        label: statistics.median(a - b for a, b in zip(turns, counted[BARE], strict=True))
        for label, turns in counted.items()
    }
    table = Table(
        f"What is added to {size}: MLP {settings['inputs']}–{'–'.join(map(str, settings['hidden']))}–10, "
        f"batch {settings['batch']}, {bare * 1e6:,.0f} µs on {device}",
        ["what", "a step", "ratio", "CPU time of a step", "ratio", f"added {unit}"],
    )
    for label, *_ in contestants:
        if label in failed:
            table.rows.append((label, f"did not run ({failed[label]})", *[""] * 4))
            continue
        table.rows.append(
            (
                label,
                shown(wall[label]),
                ratio(wall[label], wall[BARE]),
                shown(cpu[label]),
                ratio(cpu[label], cpu[BARE]),
                "" if label == BARE else f"{added[label] * 1e6:.1f} µs",
            )
        )
    table.note = (
        "All rows use the same model, batches (in random order, gathered from memory), fused AdamW, deterministic "
        "algorithms and number of threads. Validation, saving and other work at the end of an epoch are not counted. "
        "Ours includes loss and accuracy of every step, a schedule, keyed randomness, checks, TensorBoard and "
        "`metrics.jsonl`. Two parts of ours save time: a shorter optimizer step, and reading many small batches in one "
        "call. The second row has these two parts as well. The libraries also log loss and accuracy, every 50 steps."
    )
    if OURS in wall:
        usual = [ratio(wall[c.label], wall[OURS]) for c in contestants if c.module == "naive" and c.label in wall]
        table.note += f" The usual scripts take {', '.join(usual)} as long as ours."
    packages = sorted({c.package for c in contestants if c.package and c.label not in failed})
    if packages:
        table.note += f" With {environment.versions(*packages)}."
    table.bars = Bars(
        f"A training step of {bare * 1e6:,.0f} µs",
        f"{unit}, × bare loop",
        {label: [a / b for a, b in zip(turns, counted[BARE], strict=True)] for label, turns in counted.items()},
    )
    return table
