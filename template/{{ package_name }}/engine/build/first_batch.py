"""Check batches before the run: shapes, keys, `monitor` and means, in validation and training."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import rng
from ..api import Context, Task
from ..batches.loader import Loader
from ..errors import UserError
from ..losses import counting
from ..machine.device import autocast, each, move_model, to_device
from ..machine.distributed import WORLD_SIZE, from_all
from ..machine.replicated import arrivals
from ..machine.sharding import is_sharded
from ..means import value_and_n
from ..rng import Domain
from ..text import logger, number
from .differences import difference
from .kept import evaluating, keep_state
from .optimizer import check_shapes, check_trained, tensor_shapes
from .optimizer_state import reloaded
from .parts import Built, Parts, lazy_modules
from .passes import check_repeats, copied, goes_through, one_pass, weights_kept
from .target import describe_error

_ADVICE = "Return Mean(value, n) of engine/api.py, where n is the sum of the weights."


def check_one_batch(parts: Parts, is_new: bool = True) -> None:
    """Send batches through copies of model and task: the first of validation, and for a new run the
    first of training and the smallest of both. Leaves no trace. Raises `UserError`."""
    if parts.config.test and not parts.data.split("test"):  # None, or of length 0
        name = parts.config.data["_target_"]
        raise UserError(f"{name} has no test split. Leave test=true out.")
    _check_state(parts)
    put_back, loader = keep_state(parts, parts.model), parts.val or parts.train
    batch = loader.first()
    parts.train.seconds = loader.seconds  # the loader chooses its number of workers by it
    tried = copied(parts)
    before = tensor_shapes(tried.model, tried.loss)
    with weights_kept(tried) as changed, evaluating(tried, tried.model):
        for name in changed():
            raise UserError(
                f"eval() changes the model's weight {name}, and train() gives back almost the same. "
                "Let the model compute in both modes without merging weights."
            )
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
        before_step = reloaded(tried.own_state())
        with arrivals(parts.model, parts.arrived):
            loss = one_pass(tried, first, "first training batch")["loss"]
        if WORLD_SIZE > 1 and (how := difference(before_step, tried.own_state())):
            raise UserError(
                f"A step changes state{how}. Each process would have its own, and a checkpoint holds "
                "one. Make it a part of the model, or train in one process."
            )
    if is_new:
        for smallest in _smallest(parts.train):
            one_pass(tried, smallest, "smallest training batch")
        _check_task(tried, loss, first)
    check_trained(parts.optimizer, tried.model, tried.loss)
    check_shapes(before, tensor_shapes(tried.model, tried.loss))
    if is_new and parts.config.deterministic != "false":
        check_repeats(parts, tried, first, batch)
    put_back()
    from_all(None)  # a run folder is made once all processes have passed


def _check_task(built: Parts, loss: Any, batch: Any) -> None:
    """Refuse weights with a gradient that no optimizer trains, such as those of a head in the task.

    loss: with its graph. batch: from which the loss was computed. Raises `UserError`.
    """
    if is_sharded(built.config):  # the graph has parameters that FSDP makes for a step
        return
    trained = {*built.model.parameters(), *built.loss.parameters()}
    before = {p: p.detach().clone() for p in _leaves(value_and_n(loss)[0]) if p not in trained}
    if not before:
        return
    one_pass(built, batch, "first training batch", step=1)  # the task may train them in its step
    task, own = built.task, vars(built.task)
    owners = [*vars(type(task)).items(), *own.items()]
    owners += [pair for key in ("_modules", "_parameters") for pair in own.get(key, {}).items()]
    for parameter, value in before.items():
        if not torch.equal(parameter, value):
            continue
        shape = list(parameter.shape)
        names = [name for name, held in owners if any(parameter is p for p in _parameters(held))]
        where = f" in the task's {names[-1]}" if names else ""
        told = (
            f"Weights of shape {shape}{where} get a gradient, but no optimizer trains them. Hold them in "
            "the model or the loss, or freeze them with requires_grad_(False)."
        )
        if type(task).after_step is Task.after_step:
            raise UserError(told)
        logger.warning(f"{told} Or train them in after_step.")
        return


def _parameters(held: Any) -> Iterator[nn.Parameter]:
    yield from each(held, nn.Parameter)
    for module in each(held, nn.Module):
        yield from module.parameters()


def _leaves(loss: Tensor) -> list[nn.Parameter]:
    """Return the parameters that the gradient of `loss` reaches."""
    found, seen, left = [], set(), [loss.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        left += [following for following, _ in node.next_functions]
        if isinstance(leaf := getattr(node, "variable", None), nn.Parameter):
            found.append(leaf)
    return found


def _check_mean(parts: Parts, loader: Loader, loss: Any) -> None:
    """Warn if `loss` is a weighted mean without its n. Raises `UserError` if steps need this n.

    If steps have several micro-batches, also warn if the loss is not a mean, such as a contrastive
    loss. For losses that are not torch's, compare the loss of samples with the mean of two parts.
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


def _check_state(built: Built) -> None:
    """Refuse a state of the task or the data that no checkpoint can hold. Raises `UserError`."""
    for owner in (built.task, built.data):
        name = type(owner).__name__
        if hasattr(owner, "state_dict") != hasattr(owner, "load_state_dict"):
            raise UserError(f"{name} needs both `state_dict` and `load_state_dict`, or neither.")
        if hasattr(owner, "state_dict") and WORLD_SIZE > 1 and not isinstance(owner, nn.Module):
            raise UserError(f"{name} has a `state_dict`. Such a run is limited to one process.")
    try:
        reloaded(built.own_state())
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
    # In eval mode the values follow from the seed and the shapes alone.
    with (
        evaluating(built, built.model),
        goes_through(built, batch),
        autocast(built.precision, built.device),
    ):
        built.task.training_step(built.model, batch, ctx)
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
