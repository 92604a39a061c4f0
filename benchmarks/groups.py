"""What many parameter groups cost: the optimizer's step, and setting their learning rates."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from .common import Bars, Table, interleaved, per_call, project, ratio, shown

WIDTH, LAYERS = 63, 75
"""75 layers of 63×63 and biases: 150 tensors, 0.3 million parameters."""


def run(options: argparse.Namespace) -> Iterator[Table]:
    yield _groups(options.quick)


def _ours(groups: int) -> Any:
    """Build the default project's parts, with the model's 150 tensors in `count` groups."""
    from digits.engine.launch import compose
    from digits.engine.setup import build_parts

    names = [f"layers.{place}.{kind}" for place in _places() for kind in ("weight", "bias")]
    each = len(names) // groups
    specs = [
        f"{{name: g{n}, match: [{','.join(names[n * each : (n + 1) * each])}], lr_scale: {1 + n / groups}}}"
        for n in range(groups)
    ]
    return build_parts(
        compose(
            *("data=synthetic", f"data.shape=[1,1,{WIDTH}]", "data.size=640", f"data.classes={WIDTH}", "device=cpu"),
            *("model=mlp", f"model.hidden=[{','.join([str(WIDTH)] * (LAYERS - 1))}]"),
            f"optimizer.groups=[{','.join(specs)}]",
        )
    )


def _places() -> list[int]:
    """Return the positions of the MLP's linear layers: Flatten, then Linear, ReLU, Dropout in turn."""
    return [1 + 3 * layer for layer in range(LAYERS)]


def _groups(quick: bool) -> Table:
    project()
    table = Table(
        "Many parameter groups: AdamW over 150 tensors with 0.3 million parameters",
        [
            *("groups", "default `torch.optim.AdamW`", "ours", "to the default with one group"),
            *("`CosineAnnealingLR.step()`", "our rates for the next step", "ratio"),
        ],
        note="Ours is the optimizer of the default config. The default of torch's AdamW on a CPU handles the tensors "
        "one by one.",
    )
    counts = (1, 50, 150)
    parts = {count: _ours(count) for count in counts}
    plain = {}
    for count in counts:
        built = parts[count]
        for parameter in built.parameters.values():
            parameter.grad = torch.randn_like(parameter)
        built.scheduler.begin(built.optimizer, 0)
        copies = [
            {"params": [_copy(p) for p in group["params"]], "lr": group["lr"]} for group in built.optimizer.param_groups
        ]
        optimizer = torch.optim.AdamW(copies)
        plain[count] = optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1_000_000)
    works = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the scheduler steps without its optimizer
        for count in counts:
            works += [
                per_call(plain[count][0].step, 10),
                per_call(parts[count].optimizer.step, 10),
                per_call(plain[count][1].step, 50),
                per_call(parts[count].scheduler.step, 50),
            ]
        times = interleaved(works, 5 if quick else 40)
    for place, count in enumerate(counts):
        default, ours, torch_rates, our_rates = times[4 * place : 4 * place + 4]
        table.rows.append(
            (
                *(str(count), shown(default), shown(ours), ratio(ours, times[0])),
                *(shown(torch_rates), shown(our_rates), ratio(our_rates, torch_rates)),
            )
        )
    table.bars = Bars(
        "An optimizer step, 150 tensors",
        "milliseconds",
        {
            f"{who}, {count} groups": [1e3 * second for second in times[4 * place + offset]]
            for place, count in enumerate(counts)
            for offset, who in enumerate(("default AdamW", "ours"))
        },
    )
    return table


def _copy(parameter: torch.Tensor) -> torch.nn.Parameter:
    copy = torch.nn.Parameter(parameter.detach().clone())
    copy.grad = torch.randn_like(copy)
    return copy
