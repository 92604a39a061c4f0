"""`dry_run=true`: everything up to the first step, shown instead of done."""

from __future__ import annotations

from pathlib import Path

from .. import rng
from ..api import recording
from ..build.first_batch import check_one_batch, goes_through, shapes
from ..build.optimizer import group_table
from ..build.parts import Parts
from ..launch import Job
from ..loop import Steps
from ..machine.device import autocast
from ..machine.distributed import is_main
from ..paths import ROOT, RUNS
from ..setup import build_parts
from ..text import number
from .plots import new_figure, save_figure

_POINTS = 2000  # a curve on a picture of 800 pixels needs no more


def dry_run(job: Job) -> None:
    """Build and check all parts, print them, draw the schedule. Leaves no run. Raises `Exit`."""
    config = job.config
    parts = build_parts(config)
    check_one_batch(parts)
    batch = _one_batch(parts)
    if job.run is not None:
        job.run.release()
    if not is_main():
        return
    train, val = parts.train.plan, parts.val.plan if parts.val else None
    validation = f"{val.size:,} for validation" if val else "none for validation"
    micro = f" in {config.accumulate} micro-batches" if config.accumulate > 1 else ""
    print(f"model   {type(parts.model).__name__}, {_parameters(parts)}")
    print(f"data    {train.size:,} samples for training, {validation}")
    print(
        f"steps   {parts.total_steps:,} of {config.batch_size} samples{micro}: "
        f"{parts.total_steps / train.steps:.4g} epochs of {train.steps:,}"
    )
    print(f"device  {parts.device} in {parts.precision}")
    print(f"batch   {batch}")
    for line in group_table(parts.optimizer):
        print(line)
    suffix = f"_{job.folder_name.rpartition('_')[2]}" if job.folder_name else ""
    path = RUNS / config.name / f"dry_run{suffix}.png"
    draw_schedule(parts, path)
    print(f"The schedule: {path.relative_to(ROOT)}. Leave dry_run out to train.", flush=True)


def _parameters(parts: Parts) -> str:
    trained = sum(p.numel() for p in parts.parameters.values())
    frozen = sum(p.numel() for p in parts.model.parameters() if not p.requires_grad)
    return f"{trained:,} parameters" + (f" and {frozen:,} frozen ones" if frozen else "")


def _one_batch(parts: Parts) -> str:
    """The first training batch forward and backward, without a step of the optimizer."""
    steps = Steps(parts)
    parts.model.train()
    batch = parts.train.first()  # in this process: an unreadable sample is told without a traceback
    with goes_through(parts, batch):
        batch = steps.next_batch(iter([batch]))
        if parts.mix is not None:
            batch = steps.mixed(batch, 0)
        rng.seed_all(rng.fold_in(steps.step_key, 0))
        with recording() as recorded, autocast(parts.precision, parts.device):
            values = parts.task.training_step(steps.forward, batch, steps.context())
        count = parts.train.plan.counts(0)[0]
        steps.backward(values["loss"], count)
    steps.statistics.add(0, {**recorded, **values}, count)
    steps.statistics.fetch()
    text = ", ".join(f"{key} {number(value)}" for key, value in steps.statistics.means().items())
    unused = [name for name, p in parts.parameters.items() if p.grad is None]
    if unused:
        text += f"; no gradient reaches {', '.join(unused[:5])}{' …' if len(unused) > 5 else ''}"
    return f"{shapes(batch)}: {text}"


def draw_schedule(parts: Parts, path: Path) -> None:
    """The learning rate of every group over the run."""
    parts.scheduler.begin(parts.optimizer)
    stride = max(1, parts.total_steps // _POINTS)
    steps = list(range(0, parts.total_steps, stride))
    lrs = [parts.scheduler.lrs(step) for step in steps]
    figure, axes = new_figure()
    for name in lrs[0]:
        axes.plot(steps, [lr[name] for lr in lrs], label=name)
    axes.set(xlabel="optimizer step", ylabel="lr", title=f"{parts.config.name}: the schedule")
    axes.set_ylim(bottom=0)
    if len(lrs[0]) <= 12:  # a legend of every layer would hide the curves
        axes.legend()
    save_figure(figure, path)
