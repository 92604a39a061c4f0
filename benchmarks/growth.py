"""How costs grow with data, parameters, processes and the length of a run."""

from __future__ import annotations

import argparse
import statistics
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from .common import Table, interleaved, project, ratio, shown
from .scale import tables
from .workers import Worker, in_turns


def run(options: argparse.Namespace) -> Iterator[Table]:
    project()
    for table in (_seeking, _parameters, _ranks, _virtual, _divided, _divided_saves, _length):
        yield table(options.quick)
    yield from tables(options.quick)


def _seeking(quick: bool) -> Table:
    from digits.engine.batches.plan import Plan

    table = Table(
        "Reaching a batch of 128 in the middle of epoch 7 of a new process",
        ["samples", "order as a keyed bijection", "its peak memory", "torch.randperm", "ratio"],
        note="A batch in the middle costs the same as the first: no batch before it is generated or read.",
    )
    for exponent in (3, 6, 9) if quick else (3, 4, 5, 6, 7, 8, 9):
        size = 10**exponent

        def keyed(size: int = size) -> None:
            Plan(size, 128, seed=1).samples(7 * (size // 128) + size // 256)

        def randperm(size: int = size) -> None:
            torch.randperm(size)[size // 2 : size // 2 + 128]

        tracemalloc.start()
        keyed()
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        if exponent <= 7:
            ours, theirs = interleaved([keyed, randperm], 5 if quick else 15)
            row = (shown(theirs), ratio(ours, theirs))
        else:
            (ours,), row = interleaved([keyed], 5), ("needs 8 bytes a sample", "")
        table.rows.append((f"10^{exponent}", shown(ours), f"{peak:.2f} MiB", *row))
    return table


def _sides(
    settings: dict[str, Any], processes: int, rounds: int, bare: Sequence[str] = (), ours: Sequence[str] = ()
) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Measure the bare loop and ours on `processes` processes: wall and CPU seconds of a step.

    bare, ours: their command lines.
    """
    device = "cuda" if torch.cuda.device_count() >= processes else "cpu"
    workers = [
        Worker(name, name, {**settings, "device": device}, arguments=arguments, processes=processes)
        for name, arguments in (("bare", bare), ("ours", ours))
    ]
    return in_turns(workers, rounds)


def _compared(table: Table, name: str, sides: tuple[dict[str, list[Any]], dict[str, str]], *more: str) -> None:
    answers, failed = sides
    if failed:
        table.rows.append((name, *more, f"did not run ({failed})", "", "", "", ""))
        return
    walls, cpus = ([[answer[i] for answer in answers[side]] for side in ("bare", "ours")] for i in (0, 1))
    added = statistics.median(b - a for a, b in zip(*walls, strict=True))
    cells = [shown(walls[0]), shown(walls[1]), ratio(walls[1], walls[0]), ratio(cpus[1], cpus[0])]
    table.rows.append((name, *more, *cells, f"{added * 1e6:.0f} µs"))


COLUMNS = ["bare loop", "ours, every default on", "ratio", "ratio of CPU time", "added"]


def _parameters(quick: bool) -> Table:
    table = Table("A step by number of parameters (MLP, batch 16)", ["parameters (tensors)", *COLUMNS])
    sizes = {(64, 1): 400, (64, 16): 100, (256, 16): 40, (512, 40): 8}
    for (width, layers), steps in list(sizes.items())[: 1 if quick else None]:
        hidden = [width] * layers
        count = sum(a * b + b for a, b in zip([64, *hidden], [*hidden, 10], strict=True))
        settings = {"inputs": 64, "hidden": hidden, "batch": 16, "steps": steps}
        _compared(table, f"{count:,} ({2 * layers + 2})", _sides(settings, 1, 4 if quick else 20))
    return table


NETS = {
    "MLP 64–128–10": {"inputs": 64, "hidden": [128], "batch": 32, "steps": 200},
    "MLP 784–1024–1024–10": {"inputs": 784, "hidden": [1024, 1024], "batch": 128, "steps": 25},
}


def _ranks(quick: bool) -> Table:
    table = Table(
        "A step by number of processes, on one machine (batch 32 and 128 for each process)",
        ["model", "processes", *COLUMNS],
        note="Both use DistributedDataParallel, on CPUs with gloo. More processes than cores share the cores.",
    )
    for name, settings in list(NETS.items())[: 1 if quick else None]:
        for processes in (2,) if quick else (1, 2, 4):
            _compared(table, name, _sides(settings, processes, 4 if quick else 12), str(processes))
    return table


def _virtual(quick: bool) -> Table:
    table = Table(
        "A step with `virtual_ranks=4`, by number of processes (batch 32 and 128 for all processes together)",
        ["model", "processes", "without", "with", "ratio", "to one process without"],
        note="Without it, several processes use DistributedDataParallel. On CPUs with gloo.",
    )
    for name, net in list(NETS.items())[: 1 if quick else None]:
        alone: list[float] = []
        for processes in (1, 2) if quick else (1, 2, 4):
            settings = {**net, "batch": net["batch"] // processes, "device": "cpu"}
            overrides = {"without": (), "with": ("virtual_ranks=4",)}
            workers = [
                Worker(side, "ours", settings, arguments=o, processes=processes) for side, o in overrides.items()
            ]
            answers, failed = in_turns(workers, 4 if quick else 12)
            if failed:
                table.rows.append((name, str(processes), f"did not run ({failed})", "", "", ""))
                continue
            plain, virtual = ([answer[0] for answer in answers[side]] for side in overrides)
            alone = alone or plain
            cells = (shown(plain), shown(virtual), ratio(virtual, plain), ratio(virtual, alone))
            table.rows.append((name, str(processes), *cells))
    return table


def _divided(quick: bool) -> Table:
    table = Table(
        "A step with `parallel=fsdp`, by number of processes (batch 32 and 128 for each process)",
        ["model", "processes", *COLUMNS],
        note="The bare loop calls `fully_shard` itself. On CPUs with gloo. More processes than cores share the cores.",
    )
    for name, settings in list(NETS.items())[: 1 if quick else None]:
        for processes in (2,) if quick else (2, 4):
            sides = _sides(settings, processes, 4 if quick else 12, bare=["fsdp"], ours=["parallel=fsdp"])
            _compared(table, name, sides, str(processes))
    return table


def _divided_saves(quick: bool) -> Table:
    table = Table(
        "A checkpoint of divided parameters on 2 processes: how long training waits",
        [
            "state",
            "`dcp.save`",
            "`dcp.async_save`",
            "ours",
            "ratio to `dcp.async_save`",
            "until on the disk: theirs",
            "ours",
        ],
        note="Ours looks for values that are not finite, computes a checksum of each file, and syncs and renames. The "
        "others do not.",
    )
    for mebibytes in (20,) if quick else (20, 100, 400):
        worker = Worker("saves", "sharded_saves", {"mebibytes": mebibytes}, processes=2)
        answers, failed = in_turns([worker], 3 if quick else 8)
        if failed:
            table.rows.append((f"{mebibytes} MiB", f"did not run ({failed})", *[""] * 5))
            continue
        plain, waits, theirs, own_waits, ours = map(list, zip(*answers["saves"], strict=True))
        cells = (shown(plain), shown(waits), shown(own_waits), ratio(own_waits, waits), shown(theirs), shown(ours))
        table.rows.append((f"{mebibytes} MiB", *cells))
    return table


def _length(quick: bool) -> Table:
    """Measure one long run of a tiny model after 10^3, 10^4 … steps."""
    table = Table(
        "A long run: a log point every 50 steps, a validation and a checkpoint every 10,000",
        ["steps", "a step, CPU time", "a log point, CPU time", "memory", "metrics.jsonl"],
        note="Each row is a mean over the last 1,000 steps.",
    )
    marks = [1000, 5000] if quick else [10**3, 10**4, 10**5, 10**6]
    settings = {"inputs": 4, "hidden": [4], "batch": 4, "steps": 10_000 - 50, "device": "cpu"}
    worker = Worker("long", "long", {**settings, "marks": marks})
    try:
        for mark in marks:
            step, point, memory, lines = worker.turn()
            cells = [shown([step]), shown([point]), f"{memory / 2**20:.1f} MiB", f"{lines / 2**20:.2f} MiB"]
            table.rows.append((f"{mark:,}", *(cell.split(" (")[0] for cell in cells)))
    finally:
        worker.close()
    return table
