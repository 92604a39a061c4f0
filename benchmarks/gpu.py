"""What training costs on a GPU, compared with loops written by hand."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch

from .common import Bars, Table, interleaved, per_call, project, ratio, shown, temporary
from .workers import Worker, in_turns

OURS = "ours, every default on"


def run(options: argparse.Namespace) -> Iterator[Table]:
    if not torch.cuda.is_available():
        yield Table("On a GPU", [], note="These comparisons need a GPU. This machine has none.")
        return
    project()
    yield _resnet18(options.quick)
    yield _resnet50(options.quick)
    yield _syncs()
    yield _saving(options.quick)


def _overrides(model: str, side: int, batch: int) -> list[str]:
    data = "benchmarks.peers.pictures.Pictures"
    return [
        *(f"data._target_={data}", f"+data.side={side}", f"model={model}", f"batch_size={batch}"),
        *("optimizer=sgd", "lr=0.01", "precision=bf16", "channels_last=true", "scheduler=constant"),
    ]


def _speeds(
    title: str, note: str, workers: list[Worker], batch: int, rounds: int, base: str
) -> tuple[Table, dict[str, list[float]]]:
    """Measure the images per second of each contestant, and their ratio to `base`."""
    answers, failed = in_turns(workers, rounds)
    rates = {name: [batch / wall for wall, _ in turns] for name, turns in answers.items()}
    table = Table(title, ["what", "a step", "images per second", "ratio"], note=note)
    for worker in workers:
        if worker.name in failed:
            table.rows.append((worker.name, f"did not run ({failed[worker.name]})", "", ""))
            continue
        values = rates[worker.name]
        steps = [batch / rate for rate in values]
        cells = (shown(steps), f"{statistics.median(values):,.0f}", ratio(values, rates[base]) if base in rates else "")
        table.rows.append((worker.name, *cells))
    table.bars = Bars(title, "images per second", rates)
    return table, rates


def _resnet18(quick: bool) -> Table:
    batch, base = 512, "bare loop: data on the device, bf16, channels_last, fused SGD"
    settings = {"inputs": 0, "hidden": [], "batch": batch, "steps": 48, "device": "cuda"}
    overrides = _overrides("resnet18", 32, batch)
    workers = [
        Worker(base, "images", settings, arguments=["bare", "resnet18", "32"]),
        Worker(OURS, "ours_images", settings, arguments=overrides),
        Worker("ours, `data_on_device=true`", "ours_images", settings, arguments=[*overrides, "data_on_device=true"]),
        Worker(
            "usual script: DataLoader, fp32, `.item()` in every step",
            "images",
            settings,
            arguments=["naive", "resnet18", "32"],
        ),
    ]
    fast = project() / "configs" / "experiment" / "fast.yaml"
    if fast.exists():
        workers.append(
            Worker("ours, `experiment=fast`", "ours_images", settings, arguments=[*overrides, "experiment=fast"])
        )
    title = f"ResNet-18 on pictures of 3×32×32, batch {batch}"
    note = (
        "Random crops and mirroring in every row; 98 steps per epoch. The bare loop computes deterministically. Ours "
        "does so too, except with `experiment=fast`."
    )
    table, rates = _speeds(title, note, workers, batch, 3 if quick else 12, base)
    table.columns = [*table.columns, "to the usual script"]
    naive = rates.get(workers[3].name)
    table.rows = [(*row, ratio(rates[row[0]], naive) if naive and row[0] in rates else "") for row in table.rows]
    return table


def _resnet50(quick: bool) -> Table:
    batch, base = 256, "bare model loop: one batch, again and again"
    settings = {"inputs": 0, "hidden": [], "batch": batch, "steps": 20, "device": "cuda"}
    overrides = [*_overrides("resnet50", 224, batch), "compile=true", "deterministic=false"]
    workers = [
        Worker(base, "images", settings, arguments=["fixed", "resnet50", "224", "compile"]),
        Worker("ours", "ours_images", settings, arguments=overrides),
        Worker("ours, `data_on_device=true`", "ours_images", settings, arguments=[*overrides, "data_on_device=true"]),
    ]
    peak = _matmul_peak()
    table, rates = _speeds(
        f"ResNet-50 at 224 pixels, generated pictures, bf16, channels_last, compiled, batch {batch}",
        f"The matrix peak was measured with bf16 products of 8192×8192: {peak / 1e12:.0f} TFLOP/s.",
        workers,
        batch,
        3 if quick else 12,
        base,
    )
    table.columns = [*table.columns, "share of the matrix peak"]
    flops = 3 * 2 * 4.09e9  # per image: the backward pass takes twice as many as the forward pass
    table.rows = [
        (*row, f"{statistics.median(rates[row[0]]) * flops / peak:.0%}" if row[0] in rates else "")
        for row in table.rows
    ]
    return table


def _matmul_peak() -> float:
    """Measure the floating-point operations per second of a matrix product."""
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


def _syncs() -> Table:
    settings: dict[str, Any] = {"inputs": 0, "hidden": [], "batch": 64, "steps": 200, "device": "cuda"}
    table = Table("How often the host waits for the GPU between two log points (30 steps)", ["what", "waits"])
    for precision in ("bf16", "fp16"):
        arguments = [*_overrides("resnet18", 32, 64), f"precision={precision}", "clip_grad_norm=1"]
        worker = Worker(precision, "syncs", settings, arguments=arguments)
        try:
            places = worker.turn()
            table.rows.append(
                (f"{precision}, clipping by norm", f"{len(places)} {' '.join(sorted(set(places)))}".strip())
            )
        except RuntimeError as error:
            table.rows.append((precision, f"did not run ({error})"))
        finally:
            worker.close()
    return table


def _saving(quick: bool) -> Table:
    from digits.engine.run.saver import Saver

    folder = temporary()
    state = {"step": 1, "model": {f"layer{n}": torch.randn(1024, 1024, device="cuda") for n in range(100)}}
    saver = Saver(folder, keep_last=1)

    def waits() -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        saver.save(state, 1)
        torch.cuda.current_stream().synchronize()  # the next step must come after the copies
        waited = time.perf_counter() - began
        saver.wait()
        return waited

    def plain() -> float:
        torch.cuda.synchronize()
        return per_call(lambda: torch.save(state, folder / "plain.pt"), 1)()

    theirs, ours = interleaved([plain, waits], 4 if quick else 12)
    saver.close()
    table = Table("A checkpoint of 400 MiB on the GPU: how long training waits", ["torch.save", "ours", "ratio"])
    table.rows = [(shown(theirs), shown(ours), ratio(ours, theirs))]
    return table
