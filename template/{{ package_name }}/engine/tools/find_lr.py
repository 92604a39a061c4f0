"""Learning-rate range test: train a model that is thrown away while the learning rate rises.

Smith 2017, "Cyclical learning rates for training neural networks". The learning rate rises in equal
ratios, and the loss is smoothed, as in fastai (Howard & Gugger 2020).
"""

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from .. import rng, signals
from ..build.first_batch import check_one_batch
from ..build.parts import Parts
from ..errors import Exit, UserError
from ..launch import Job
from ..loop import Steps
from ..paths import RUNS, shown, to_json, write_whole
from ..schedule import Horizon, Schedule
from ..setup import build_parts
from .folders import new_figure, save_figure, writing_to

_MEMORY = 0.9  # share of the past in the smoothed loss, which is a mean over about ten steps


class Row(NamedTuple):
    step: int
    lr: float
    loss: float
    smoothed: float


def find_lr(job: Job) -> None:
    """Run the test, write its files, print the suggestion. Raises `Exit`."""
    config = replace(job.config, parallel="ddp")  # one process
    if config.resume is not None:
        raise UserError(f"find_lr.py cannot resume {config.resume}. Leave resume out.")
    parts = build_parts(config)
    check_one_batch(parts)
    rows = range_test(parts)
    if not rows:
        raise UserError("The first loss or gradient is not finite. Look at the data.")
    found = steepest(rows)
    stamp = job.folder_name or datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = RUNS / config.name / "find_lr" / stamp
    picture = folder / "find_lr.png"
    draw_range_test(rows, found, picture)
    lines = [to_json(row._asdict()) + "\n" for row in rows]
    with writing_to(folder):
        write_whole(folder / "find_lr.jsonl", "".join(lines))
    first, last = f"{rows[0].lr:.1e}", f"{rows[-1].lr:.1e}"
    if found is None:
        advice = f"Look at {shown(picture)} and choose another find_lr.start and find_lr.stop."
        raise UserError(f"The loss does not fall between lr={first} and {last}. {advice}")
    print(f"{len(rows)} steps from lr {first} to {last}: {shown(picture)}")
    lr, lowest = f"{float(f'{found.lr:.1e}'):g}", min(rows, key=lambda row: row.smoothed).lr
    print(f"Suggested lr: {lr}. The loss falls fastest there. It is lowest at {lowest:.1e}.")
    kept = [o for o in job.overrides if not o.startswith(("lr=", "find_lr.", "+find_lr."))]
    print(" ".join(["python train.py", *map(shlex.quote, kept), f"lr={lr}"]), flush=True)


def range_test(parts: Parts) -> list[Row]:
    """Train `parts` with a rising learning rate until the loss explodes or the range ends."""
    test = parts.config.find_lr

    def lr_at(step: int) -> float:
        return test.start * (test.stop / test.start) ** (step / (test.steps - 1))

    class Rising(Schedule):
        def scale(self, step: int) -> float:
            return lr_at(step) / self.horizon.lr

    parts.scheduler = Rising(horizon=Horizon(test.steps, test.steps, parts.config.lr))
    parts.scheduler.begin(parts.optimizer)
    parts.averaged = None
    # The test has its own batches, augmentation and dropout, not those of the run.
    key = rng.make_key(parts.config.seed, rng.Domain.FIND_LR)
    parts.train.plan.seed = parts.train.reader.seed = key
    steps = Steps(parts)
    steps.step_key, steps.batch_key = rng.fold_in(key, 0), rng.fold_in(key, 1)
    parts.model.train()
    rows: list[Row] = []
    average = 0.0
    batches = parts.train.read(0, test.steps)
    for step in range(test.steps):
        if signals.requested():
            raise Exit(f"Stopped by {signals.requested()}. Start find_lr.py again.")
        steps.training_step(batches)
        steps.windows.fetch()
        if steps.windows.not_finite is not None:
            break
        loss = steps.windows.means()["loss"]
        average = _MEMORY * average + (1 - _MEMORY) * loss
        smoothed = average / (1 - _MEMORY ** (step + 1))  # corrects for the start at 0
        rows.append(Row(step, lr_at(step), loss, smoothed))
        if smoothed > 4 * min(row.smoothed for row in rows):
            break  # the loss has exploded
    return rows


def steepest(rows: Sequence[Row]) -> Row | None:
    """Return the row where the smoothed loss falls fastest per decade; None if it hardly falls.

    A tenth of the lr with the lowest loss is too high if the loss stays near zero over decades.
    """
    bottom = min(range(len(rows)), key=lambda i: rows[i].smoothed)
    if len(rows) < 3 or rows[bottom].smoothed > 0.95 * rows[0].smoothed:
        return None
    half = max(1, round(0.25 / math.log10(rows[1].lr / rows[0].lr)))  # a quarter of a decade

    def slope(i: int) -> float:
        low, high = rows[max(0, i - half)], rows[min(len(rows) - 1, i + half)]
        return (high.smoothed - low.smoothed) / math.log10(high.lr / low.lr)

    return rows[min(range(bottom + 1), key=slope)]


def draw_range_test(rows: Sequence[Row], found: Row | None, path: Path) -> None:
    figure, (axes,) = new_figure()
    lrs = [row.lr for row in rows]
    axes.plot(lrs, [row.loss for row in rows], color="0.75", label="loss of a step")
    axes.plot(lrs, [row.smoothed for row in rows], label="smoothed")
    if found is not None:
        axes.axvline(found.lr, color="tab:red", linestyle="--", label=f"lr {found.lr:.1e}")
    axes.set_ylim(0, 1.5 * rows[0].smoothed)
    axes.set(xscale="log", xlabel="lr", ylabel="loss", title="Learning-rate range test")
    save_figure(figure, path)
