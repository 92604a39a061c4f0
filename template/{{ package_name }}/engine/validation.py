"""Evaluate each sample of a split once. Call what a task does after steps and validations."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import rng
from .api import Context, Task, recording
from .batches.loader import Loader
from .build.kept import evaluating, keep_state
from .build.parts import Built, Parts
from .log.media import Media
from .log.report import Report
from .log.statistics import Statistics
from .machine import distributed
from .machine.device import autocast, ended, map_tensors, to_device
from .machine.distributed import is_main
from .machine.sharding import is_sharded
from .means import parts_of_whole
from .rng import Domain
from .run import checkpoint
from .run.folder import Run
from .run.resume import find_weights
from .setup import held_out
from .text import logger, number


@torch.no_grad()
def evaluate_split(
    built: Built,
    model: nn.Module,
    loader: Loader,
    step: int,
    epoch: int,
    after_step: Callable[[], None] = lambda: None,
    look: Callable[[Any, Context], None] | None = None,
) -> dict[str, float]:
    """Return the mean of each value of the task by its key, and the scalars of its metrics by name
    or name/key.

    model: in eval mode. step, epoch: how far it is trained. look: called with each batch (on the
    device) and its context. after_step: called after the batches of each step.
    """
    for metric in built.metrics.values():
        metric.reset()
    values, plan = Statistics(built.device, derived=built.task.derived), loader.plan
    ctx = Context(step, epoch, training=False, device=built.device, metrics=built.metrics)
    samples = min(plan.size, plan.steps * plan.batch_size)
    key = rng.make_key(built.config.seed, Domain.VALIDATION)
    batches = loader.read(0, plan.steps)
    with ended(batches):
        for place in range(plan.steps):
            for micro, count in enumerate(plan.counts(place)):
                batch = to_device(next(batches), built.device, built.config.channels_last)
                number = place * plan.micro_batches + plan.mine[micro]
                rng.seed_all(rng.fold_in(key, number))
                with autocast(built.precision, built.device), recording() as recorded:
                    parts_of_whole[-1] = samples / count
                    returned = built.task.validation_step(model, batch, ctx)
                values.add(number, {**recorded, **returned}, count)
                if look is not None:
                    look(batch, ctx)
            after_step()
    values.fetch()
    found = values.means()
    for name, metric in built.metrics.items():
        value = metric.compute()
        several = value if isinstance(value, Mapping) else {"": value}
        for part, one in several.items():
            if not isinstance(one, torch.Tensor) or one.numel() == 1:
                found[f"{name}/{part}" if part else name] = float(one)
    return found


def validate(
    parts: Parts,
    model: nn.Module,
    step: int,
    stop_if_asked: Callable[[Callable[[], None]], None],
    media: Media,
    hooks: "Hooks",
) -> dict[str, float]:
    """Evaluate the validation split, show what loggers take, and call the task's `after_validation`.
    Return the values by tag. Training goes on as if there had been no validation.

    stop_if_asked: called after each step. Its argument puts back the state before the validation.
    """
    assert parts.val is not None
    distributed.share_buffers(model)
    put_back, epoch = keep_state(parts, model), parts.train.plan.epoch(step)

    def before_stop() -> None:
        put_back()
        put_modes_back()

    stop = partial(stop_if_asked, before_stop)
    with evaluating(parts, model) as put_modes_back:
        with media.watching(model) as look:
            values = evaluate_split(parts, model, parts.val, step, epoch, stop, look)
        put_back(own=not hooks.has_after_validation)  # the task may keep what it has found
        results = {f"val/{key}": value for key, value in values.items()}
        hooks.after_validation(step, model, results)
    return results


def test_best(parts: Parts, run: Run, report: Report, step: int) -> None:
    """If the config says `test`: evaluate the best checkpoint on the test split.

    Logs the values at `step`, the last of the run, and notes them in the manifest.
    """
    if not parts.config.test:
        return
    distributed.from_main(None)  # the main process has written best.pt
    path, state = find_weights(run.folder, "best", mapped=is_sharded(parts.config))
    if is_sharded(parts.config):  # only the main process has looked for damage
        path = distributed.from_main(path)
        state = parts.placed({**checkpoint.load(path, mapped=True), "optimizer": {}})
    last = map_tensors(torch.clone, parts.model.state_dict())  # the run's result needs them
    parts.load_built(state, averaged=True)
    loader = held_out(parts, "test")
    assert loader is not None  # else `check_one_batch` has refused the config
    with evaluating(parts, parts.model):
        values = evaluate_split(parts, parts.model, loader, state["step"], state["epoch"])
    parts.model.load_state_dict(last)
    values = {f"test/{key}": value for key, value in values.items()}
    report.write(step, values)
    run.update_manifest(test={"checkpoint": path.name, "step": state["step"], "values": values})
    shown = "  ".join(f"{tag} {number(value)}" for tag, value in values.items())
    logger.info(f"{path.name} of step {state['step']} on the test split: {shown}")


class Hooks:
    """Calls what the task overrides: in each process, with the same random draws."""

    def __init__(self, parts: Parts, folder: Path | None) -> None:
        """folder: that of the run. None if there is no run."""
        self.parts, self.folder = parts, folder if is_main() else None
        task = type(parts.task)
        self.has_after_step = task.after_step is not Task.after_step
        self.has_after_validation = task.after_validation is not Task.after_validation

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        p = self.parts
        p.task.after_step(p.model, p.optimizer, self._begin(step, training=True))
        if not p.model.training:  # it may have drawn a sample
            p.model.train()

    @torch.no_grad()
    def after_validation(self, step: int, model: nn.Module, values: Mapping[str, float]) -> None:
        """Call `after_validation`. `model` is the one that was validated, in eval mode."""
        if self.has_after_validation:
            self.parts.task.after_validation(model, values, self._begin(step, training=False))

    def _begin(self, step: int, training: bool) -> Context:
        p, plan = self.parts, self.parts.train.plan
        rng.seed_all(rng.make_key(p.config.seed, Domain.HOOK, step, training))
        ends = step % plan.steps == 0
        return Context(step, plan.epoch(step), training, p.device, p.metrics, ends, self.folder)
