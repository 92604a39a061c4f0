"""`dry_run=true`: build everything, do the first steps, show both, and leave no run.

The second step is done three times: after the first one, again from a checkpoint of the first one,
and from this checkpoint in a second copy of everything. All must end alike.
"""

import contextlib
import copy
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..build.first_batch import check_one_batch, stored
from ..build.hidden_state import DRAW, KEEP, difference, refuse
from ..build.optimizer import group_table
from ..build.parts import Parts
from ..build.passes import goes_through, shapes
from ..build.pretrained import other_pictures
from ..launch import Job
from ..log.messages import open_log
from ..loop import Steps
from ..machine.device import map_tensors
from ..machine.distributed import from_all, is_main
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
    begun, steps = stored(parts.model.state_dict()), Steps(parts)
    batch = _first_step(steps)
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


def _first_step(steps: Steps) -> str:
    """Do the first step of training; return the shapes and values of its batch."""
    parts = steps.parts
    parts.scheduler.begin(parts.optimizer)
    parts.train.workers = 0  # in this process, an unreadable sample raises its own error
    batches = list(parts.train.read(0, 1))
    parts.model.train()
    with goes_through(parts, batches[0]):
        steps.training_step(iter(batches))
    steps.windows.fetch()
    text = ", ".join(f"{key} {number(value)}" for key, value in steps.windows.means().items())
    if steps.windows.not_finite:
        text += f"; the {steps.windows.not_finite[1]} is not finite"
    unused = [name for name, p in parts.parameters.items() if p.grad is None]
    if unused and not parts.in_turn:
        text += f"; no gradient reaches {', '.join(unused[:5])}{' …' if len(unused) > 5 else ''}"
    return f"{shapes(steps.batch)}: {text}"


def _check_resume(steps: Steps, begun: Mapping[str, Any]) -> None:
    """Do the second step three times. begun: the model before the first one. Raises `UserError`."""
    saved = _state(steps)
    wanted, again = _second_step(steps), _second_step(steps, saved)
    with contextlib.redirect_stderr(io.StringIO()):  # such as what init_from says
        other = Steps(build_parts(steps.config))
    model = stored(other.parts.model.state_dict())
    found = {
        "When the second step is repeated, ": difference(wanted, again),
        "When everything is built again, model": difference(begun, model),
        "When a second copy resumes, ": difference(wanted, _second_step(other, saved)),
    }
    told = next((when + how.removeprefix(".") for when, how in found.items() if how), None)
    for sentence in filter(None, from_all(told)):  # all processes end alike
        refuse(steps.config, f"{sentence}. {DRAW} {KEEP}")
        return


def _second_step(steps: Steps, saved: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Do the second step, from a checkpoint if it is given. Return its batch and the state after it."""
    parts = steps.parts
    if saved is not None:
        parts.load_state_dict(copy.deepcopy(saved))  # an optimizer keeps the tensors
        steps.scaler.load_state_dict(saved["scaler"])
        steps.step = 1
        parts.scheduler.begin(parts.optimizer, 1)
    parts.model.train()
    parts.train.workers = 0
    batches = list(parts.train.read(1, 2))
    batch = map_tensors(Tensor.clone, batches)
    steps.training_step(iter(batches))
    return {"batch": batch, **_state(steps)}


def _state(steps: Steps) -> dict[str, Any]:
    """Return the state as a checkpoint gives it back."""
    own = {"scaler": steps.scaler.state_dict(), "step": steps.step}
    return stored({**steps.parts.state_dict(), **own})


def draw_schedule(parts: Parts, path: Path) -> None:
    """Draw the learning rate of every parameter group over the run."""
    stride = max(1, parts.total_steps // 2000)  # enough points for 840 pixels
    steps = list(range(0, parts.total_steps, stride))
    lrs = [parts.scheduler.lrs(step) for step in steps]
    figure, (axes,) = new_figure()
    for name in lrs[0]:
        axes.plot(steps, [lr[name] for lr in lrs], label=name)
    axes.set(xlabel="optimizer step", ylabel="lr", ylim=(0, None))
    axes.set_title(f"{parts.config.name}: the schedule")
    save_figure(figure, path)
