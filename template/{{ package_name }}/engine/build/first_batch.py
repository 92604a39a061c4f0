"""Check batches before the run: shapes, keys, `monitor` and means, in validation and training."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from .. import rng
from ..api import Context, Task
from ..batches.loader import Loader
from ..errors import UserError
from ..losses import counting
from ..machine.device import autocast, map_tensors, move_model, tensors_in, to_device
from ..machine.distributed import WORLD_SIZE, from_all
from ..machine.replicated import arrivals
from ..machine.sharding import is_sharded
from ..means import value_and_n
from ..rng import Domain
from ..text import logger, number
from .optimizer import check_shapes, check_trained, tensor_shapes
from .optimizer_state import stored
from .parts import Built, Parts, lazy_modules
from .passes import check_repeats, copied, goes_through, one_pass
from .target import describe_error

_ADVICE = "Return Mean(value, n) of engine/api.py, where n is the sum of the weights."


def check_one_batch(parts: Parts, is_new: bool = True) -> None:
    """Send batches through copies of model and task: the first of validation, and for a new run the
    first of training and the smallest of both. Leaves no trace. Raises `UserError`."""
    if parts.config.test and not parts.data.split("test"):  # None, or of length 0
        name = parts.config.data["_target_"]
        raise UserError(f"{name} has no test split. Leave test=true out.")
    loader, own_state = parts.val or parts.train, checked_state(parts)
    batch = loader.first()
    parts.train.seconds = loader.seconds  # the loader chooses its number of workers by it
    tried = copied(parts)
    before = tensor_shapes(tried.model, tried.loss)
    values = one_pass(tried, batch, "first batch", training=False)
    # A metric may give several values.
    monitor, several = parts.config.monitor, tuple(f"val/{key}/" for key in parts.metrics)
    names = [f"val/{key}" for key in (*values, *parts.metrics)]
    if parts.val is not None and monitor not in names and not monitor.startswith(several):
        raise UserError(f"monitor={monitor} is not one of the values {', '.join(names)}.")
    if is_new:
        _check_mean(tried, loader, values["loss"])
        for smallest in _smallest(parts.val):
            one_pass(tried, smallest, "smallest validation batch", training=False)
    if is_new or WORLD_SIZE > 1:
        first = parts.train.read_here(parts.train.plan.batches(0)[0])
        with arrivals(parts.model, parts.arrived):
            one_pass(tried, first, "first training batch")
    if is_new:
        for smallest in _smallest(parts.train):
            one_pass(tried, smallest, "smallest training batch")
        _check_task(tried)
    check_trained(parts.optimizer, tried.model, tried.loss)
    check_shapes(before, tensor_shapes(tried.model, tried.loss))
    if is_new and parts.config.deterministic != "false":
        check_repeats(parts, tried, first, batch)
    parts.load_own_state(own_state)
    from_all(None)  # a run folder is made once all processes have passed


def _check_task(built: Built) -> None:
    """Refuse weights of the task that get a gradient: no optimizer trains them. Raises `UserError`."""
    task, trained = built.task, {*built.model.parameters(), *built.loss.parameters()}
    if type(task).after_step is not Task.after_step:  # it may train them
        return
    own = vars(task)
    for name, value in {**own.get("_parameters", {}), **own.get("_modules", {}), **own}.items():
        modules: list[nn.Module] = []
        map_tensors(modules.append, value, nn.Module)
        held = {*tensors_in(value), *(p for module in modules for p in module.parameters())}
        if any(t.is_leaf and t.grad is not None for t in held - trained):
            raise UserError(
                f"The task's attribute {name} holds weights that get a gradient, but no optimizer trains "
                "them. Hold them in the model or the loss, or freeze them with requires_grad_(False)."
            )


def _check_mean(parts: Parts, loader: Loader, loss: Any) -> None:
    """Warn if `loss` is a weighted mean that says no n. Raises `UserError` where one is needed.

    If steps have several micro-batches, also warn if it is no mean at all, such as a contrastive
    loss. Other losses than torch's are compared with the mean over two parts of some samples.
    """
    value, n = value_and_n(loss)
    if hasattr(value, "mean_over"):  # one of torch's losses says it
        return
    is_divided = parts.train.plan.micro_batches > 1
    telling = counting(parts.loss, parts.config.loss)
    if telling and n is None:
        name = f"loss.{next(iter(telling))}".rstrip(".")
        sentence = f"{name} is a mean over class weights or some targets. A computation lost their "
        sentence += f"sum, so means over batches are not exact. {_ADVICE}"
        if is_divided:
            raise UserError(f"{sentence} Or train with accumulate=1 on one process.")
        logger.warning(sentence)
        return

    plan = loader.plan
    micro_batch = plan.batch_size // plan.micro_batches
    size = min(64, 4 * micro_batch, plan.size)  # without gradients, four take less memory than one
    takes = (loader.seconds or 0) * 3 * size / micro_batch  # seconds
    # Processes with a divided model must call it equally often, so a clock must not decide.
    if size < 2 or takes > 1 or is_sharded(parts.config) or not (is_divided or plan.steps > 1):
        return
    samples = np.linspace(0, plan.size - 1, size).astype(int)  # they may be sorted by class
    samples = samples if parts.val else plan.samples(0)[:size]

    def mean_of(part: np.ndarray, step: int = 0) -> tuple[float, float]:
        batch = loader.read_here(plan.batches(0)[0]._replace(indices=part))
        values = one_pass(parts, batch, "few samples", step, training=False)
        value, n = value_and_n(values["loss"], len(part))
        return float(value), float(n)

    try:
        (whole, _), (other_draws, _) = mean_of(samples), mean_of(samples, step=1)
        (first, n), (second, m) = map(mean_of, np.split(samples, [size // 3 or 1]))
    except Exception:  # an unreadable sample, or a task that needs whole batches
        return
    mean = (first * n + second * m) / (n + m or 1)
    close = partial(math.isclose, whole, rel_tol=1e-3 if parts.precision == "fp32" else 2e-2)
    if close(mean) or not close(other_draws) or not math.isfinite(whole + mean):
        return
    if is_divided or min(first, second) < whole < max(first, second):
        logger.warning(
            f"The loss of {size} samples is {number(whole)}, but the mean over two parts of them is "
            f"{number(mean)}. Micro-batches and validation batches are averaged in this way. If the "
            f"loss is a weighted mean: {_ADVICE}"
        )


def checked_state(built: Built) -> dict[str, Any]:
    """Return the state of the task and the data. Raises `UserError` if no checkpoint can hold it."""
    for owner in (built.task, built.data):
        name = type(owner).__name__
        if hasattr(owner, "state_dict") != hasattr(owner, "load_state_dict"):
            raise UserError(f"{name} needs both `state_dict` and `load_state_dict`, or neither.")
        if hasattr(owner, "state_dict") and WORLD_SIZE > 1 and not isinstance(owner, nn.Module):
            raise UserError(f"{name} has a `state_dict`. Such a run is limited to one process.")
    try:
        return stored(built.own_state())
    except Exception as error:
        raise UserError(
            "A `state_dict` of the task or the data does not fit into a checkpoint. Return tensors, "
            f"numbers, texts, and lists and dicts of them. {describe_error(error)}"
        ) from error


def materialise(built: Built, loader: Loader) -> None:
    """Send the first batch through lazy modules: they learn their shapes. Raises `UserError`."""
    if not (names := lazy_modules(built)):
        return
    if is_sharded(built.config):
        told = f"parallel={built.config.parallel} does not work with the lazy module '{names[0]}'."
        raise UserError(f"{told} Give it its sizes.")
    batch = to_device(loader.first(), built.device, built.config.channels_last)
    ctx = Context(0, 1, training=True, device=built.device)
    rng.seed_all(rng.make_key(built.config.seed, Domain.INIT, 5))
    built.model.eval()  # the values follow from the seed and the shapes alone
    with built.evaluating(), goes_through(built, batch), autocast(built.precision, built.device):
        built.task.training_step(built.model, batch, ctx)
    built.model.train()
    for name in lazy_modules(built):
        raise UserError(f"The lazy module '{name}' gets no batch in eval mode. Give it its sizes.")
    move_model(built.model, built.device, built.config.channels_last)


def _smallest(loader: Loader | None) -> Iterator[Any]:
    """Read the smallest micro-batch of an epoch, over all processes, if they differ in size."""
    if loader is None:
        return
    plan = loader.plan
    first, last = plan.batches(0)[0], plan.samples(plan.steps - 1)
    size = max(1, len(last) // plan.micro_batches)
    if size < len(first.indices):
        yield loader.read_here(first._replace(indices=last[-size:]))
