"""Learning-rate range test: a model that is thrown away trains while the rate rises step by step.

Smith 2017, "Cyclical learning rates for training neural networks", with a rate that rises in equal
ratios and a smoothed loss, as in fastai (Howard & Gugger 2020).
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ..build.first_batch import check_one_batch
from ..errors import UserError
from ..launch import Job
from ..machine.distributed import WORLD_SIZE
from ..paths import ROOT, RUNS
from ..setup import build_parts
from .plots import new_figure, save_figure
from .range_test import Row, range_test

_FALLS = 0.95  # a loss that never gets below this share of its first value does not fall


def find_lr(job: Job) -> None:
    """Do the test, write its files, print the suggestion. Raises `Exit`."""
    config = job.config
    if config.resume is not None:
        raise UserError("find_lr.py tests a model from its first step; leave resume out.")
    if WORLD_SIZE > 1:
        raise UserError("find_lr.py runs in one process; start it without torchrun.")
    parts = build_parts(config)
    check_one_batch(parts)
    rows = range_test(parts)
    found = steepest(rows)
    stamp = job.folder_name or datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = RUNS / config.name / "find_lr" / stamp
    draw(rows, found, folder / "find_lr.png")
    lines = [json.dumps(row._asdict()) + "\n" for row in rows]
    (folder / "find_lr.jsonl").write_text("".join(lines), encoding="utf-8")
    for sink in parts.open_loggers(folder, 0):
        for row in rows:
            values = {"loss": row.loss, "smoothed": row.smoothed, "lr": row.lr}
            sink.scalars(row.step, {f"find_lr/{key}": value for key, value in values.items()})
        sink.close()
    say(rows, found, job.overrides, folder.relative_to(ROOT))


def steepest(rows: Sequence[Row]) -> Row | None:
    """Where the smoothed loss falls fastest per decade, before its lowest point; None: it never falls.

    Slopes are taken over a quarter of a decade to both sides. On the nets and optimizers that come
    with the project it trained well every time; a tenth of where the loss is lowest did not: where
    the loss stays near zero over decades, that is far too high.
    """
    if len(rows) < 3:
        return None
    bottom = min(range(len(rows)), key=lambda i: rows[i].smoothed)
    if rows[bottom].smoothed > _FALLS * rows[0].smoothed:
        return None
    half = max(1, round(0.25 / math.log10(rows[1].lr / rows[0].lr)))

    def slope(i: int) -> float:
        low, high = rows[max(0, i - half)], rows[min(len(rows) - 1, i + half)]
        return (high.smoothed - low.smoothed) / math.log10(high.lr / low.lr)

    return rows[min(range(bottom + 1), key=slope)]


def say(rows: Sequence[Row], found: Row | None, overrides: Sequence[str], folder: Path) -> None:
    """Print the suggestion, why, and the command that takes it. Raises `UserError` without one."""
    if not rows:
        raise UserError("The loss is not finite at the first step; look at the data.")
    if found is None:
        raise UserError(
            f"The loss does not fall between lr={rows[0].lr:.1e} and {rows[-1].lr:.1e}; choose "
            f"another find_lr.start and find_lr.stop (drawn in {folder}/find_lr.png)."
        )
    bottom = min(rows, key=lambda row: row.smoothed)
    print(f"{len(rows)} steps from lr {rows[0].lr:.1e} to {rows[-1].lr:.1e}: {folder}/find_lr.png")
    why = f"there the loss falls fastest; it is lowest at {bottom.lr:.1e}"
    if rows[-1].smoothed > 2 * bottom.smoothed:
        why += f" and explodes by {rows[-1].lr:.1e}"
    elif bottom.step >= rows[-1].step - 5:
        why += ", where the range ends: raise find_lr.stop to see more"
    lr = f"{float(f'{found.lr:.1e}'):g}"
    print(f"Suggested lr: {lr}, as {why}.")
    kept = [o for o in overrides if not o.startswith(("lr=", "find_lr.", "+find_lr."))]
    print(" ".join(["python train.py", *map(shlex.quote, kept), f"lr={lr}"]), flush=True)


def draw(rows: Sequence[Row], found: Row | None, path: Path) -> None:
    """The loss and its smoothed course over the rate."""
    figure, axes = new_figure()
    rates: list[Any] = [row.lr for row in rows]
    axes.plot(rates, [row.loss for row in rows], color="0.75", label="loss of a step")
    axes.plot(rates, [row.smoothed for row in rows], label="smoothed")
    if found is not None:
        axes.axvline(found.lr, color="tab:red", linestyle="--", label=f"lr {found.lr:.1e}")
    if rows:
        first = rows[0].smoothed
        axes.set_ylim(0, 1.5 * max(first, min(row.smoothed for row in rows)))
    axes.set(xscale="log", xlabel="lr", ylabel="loss", title="Learning-rate range test")
    axes.legend()
    save_figure(figure, path)
