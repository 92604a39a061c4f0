"""`dry_run=true`: build everything, do the first steps, show both, and leave no run.

The second step is done twice: after the first one, and from a checkpoint of the first one in a
second copy of everything. Both must end alike.
"""

import contextlib
import io
from pathlib import Path
from typing import Any

from torch import Tensor

from ..build.first_batch import check_one_batch
from ..build.optimizer import group_table
from ..build.optimizer_state import reloaded
from ..build.parts import Parts
from ..build.passes import goes_through, refuse_difference
from ..launch import Job
from ..log.announce import other_pictures
from ..log.console import open_log
from ..loop import Steps
from ..machine.device import map_tensors, shapes
from ..machine.distributed import is_main
from ..paths import ROOT, RUNS
from ..setup import build_parts
from ..text import number
from .folders import new_figure, save_figure


def dry_run(job: Job) -> None:
    """Build and check all parts, print them, draw the schedule. Raises `Exit`."""
    config = job.config
    open_log("warning")
    parts = build_parts(config)
    check_one_batch(parts)
    steps, begun = Steps(parts), reloaded(parts.model.state_dict())
    parts.scheduler.begin(parts.optimizer)
    _do_step(steps)
    batch = _describe_step(steps)
    if config.deterministic != "false":
        _check_resume(steps, begun)
    if job.run is not None:
        job.run.release()
    if not is_main():
        return
    train, val = parts.train.plan, parts.val.plan.size if parts.val else 0
    trained = sum(p.numel() for p in parts.parameters.values())
    frozen = sum(p.numel() for p in parts.model.parameters() if not p.requires_grad)
    others = f" and {frozen:,} frozen ones" if frozen else ""
    micro = f" in {config.accumulate} micro-batches" if config.accumulate > 1 else ""
    print(f"model   {type(parts.model).__name__}, {trained:,} parameters" + others)
    print(f"data    {train.size:,} samples for training, {val:,} for validation")
    epochs = f"{parts.total_steps / train.steps:.4g} epochs of {train.steps:,}"
    print(f"steps   {parts.total_steps:,} of {config.batch_size} samples{micro}: {epochs}")
    print(f"device  {parts.device} in {parts.precision}")
    print(f"batch   {batch}")
    print(*group_table(parts.optimizer), sep="\n")
    if text := other_pictures(parts):
        print(text)
    suffix = f"_{job.folder_name.rpartition('_')[2]}" if job.folder_name else ""
    path = RUNS / config.name / f"dry_run{suffix}.png"
    draw_schedule(parts, path)
    print(f"The schedule: {path.relative_to(ROOT)}. Leave dry_run out to train.", flush=True)


def _do_step(steps: Steps) -> list[Any]:
    """Do the next step of training. Return copies of its micro-batches."""
    parts = steps.parts
    parts.train.workers = 0  # in this process, an unreadable sample raises its own error
    parts.model.train()
    batches = list(parts.train.read(steps.step, steps.step + 1))
    copies: list[Any] = map_tensors(Tensor.clone, batches)
    with goes_through(parts, batches[0]):
        steps.training_step(iter(batches))
    return copies


def _describe_step(steps: Steps) -> str:
    steps.windows.fetch()
    text = ", ".join(f"{key} {number(value)}" for key, value in steps.windows.means().items())
    if steps.windows.not_finite:
        text += f"; the {steps.windows.not_finite[1]} is not finite"
    unused = [name for name, p in steps.parts.parameters.items() if p.grad is None]
    if unused and not steps.in_turn:
        text += f"; no gradient reaches {', '.join(unused[:5])}{' …' if len(unused) > 5 else ''}"
    return f"{shapes(steps.batch)}: {text}"


def _check_resume(steps: Steps, begun: dict[str, Any]) -> None:
    """Resume in a second copy and do the second step. begun: the model before the first step."""
    saved = _state(steps)
    with contextlib.redirect_stderr(io.StringIO()):  # such as what init_from says
        other = Steps(build_parts(steps.config))
    built_again = reloaded(other.parts.model.state_dict())
    other.parts.load_state_dict(saved)
    other.scaler.load_state_dict(saved["scaler"])
    other.step = 1
    other.parts.scheduler.begin(other.parts.optimizer, 1)
    ends = [{"batch": _do_step(one), **_state(one)} for one in (steps, other)]
    what = "When everything is built again, this differs: model"
    refuse_difference(steps.config, what, begun, built_again)
    what = "When a second copy resumes, this differs: step"
    refuse_difference(steps.config, what, *ends)


def _state(steps: Steps) -> dict[str, Any]:
    scaler = steps.scaler.state_dict()
    return reloaded({**steps.parts.state_dict(), "scaler": scaler, "step": steps.step})


def draw_schedule(parts: Parts, path: Path) -> None:
    stride = max(1, parts.total_steps // 2000)  # enough points for 840 pixels
    steps = list(range(0, parts.total_steps, stride))
    lrs = [parts.scheduler.lrs(step) for step in steps]
    figure, (axes,) = new_figure()
    for name in lrs[0]:
        axes.plot(steps, [lr[name] for lr in lrs], label=name)
    axes.set(xlabel="optimizer step", ylabel="lr", ylim=(0, None))
    axes.set_title(f"{parts.config.name}: the schedule", parse_math=False)
    save_figure(figure, path)
