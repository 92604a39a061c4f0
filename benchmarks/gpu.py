"""The results of the bundle for a GPU machine, as tables: `python -m benchmarks gpu --results FILE`."""

from __future__ import annotations

import argparse

from .common import Table
from .on_gpu.answers import tables


def run(options: argparse.Namespace) -> list[Table]:
    if options.results is not None:
        return tables(options.results)
    note = (
        "**Not yet run on a GPU.** `python -m benchmarks.gpu_bundle FOLDER` makes a folder of a few megabytes. Copy it "
        "to a machine that has a GPU, and torch, torchvision, torchmetrics, tensorboard, scikit-learn, matplotlib and "
        "pytest, and pandas for tables. It needs no network. There, `python FOLDER/run.py` answers in at most 450 s: "
        "the tests of the code for GPUs, exact resuming, host waits, which models repeat, speed and memory beside "
        "loops written by hand. `python -m benchmarks gpu --results FOLDER/results/results.jsonl --out "
        "docs/benchmarks.md` puts the answers here."
    )
    return [Table("On a GPU", [], note=note)]
