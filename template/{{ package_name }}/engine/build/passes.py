"""Single batches through copies of model and task, outside of training."""

import contextlib
import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import rng
from ..api import Context, Share, check_scalar, count_share, recording
from ..config.schema import Config
from ..errors import Exit, UserError
from ..machine.device import autocast, map_tensors, to_device
from ..machine.distributed import RANK
from ..means import value_and_n
from ..rng import Domain
from .parts import Built, Parts
from .target import describe_error

_SMALL = 1 << 28
"""Bytes of weights that may be copied. A large model is not."""


@contextlib.contextmanager
def weights_kept(built: Built) -> Iterator[None]:
    """Drop the gradients of the block, and put back weights that it changes, unless they are many."""
    weights = [*built.model.parameters(), *built.loss.parameters()]
    is_small = sum(weight.nbytes for weight in weights) < _SMALL
    kept = [weight.detach().clone() for weight in weights if is_small]
    try:
        yield
    finally:
        for weight in weights:
            weight.grad = None
        for weight, value in zip(weights, kept, strict=False):
            weight.data.copy_(value)


def copied(built: Any) -> Any:
    """Return `built` with copies of model, loss, task and metrics, which share their weights.

    What cannot be copied, such as a model with an open file, is returned itself.
    """
    modules = [*built.model.modules(), *built.loss.modules()]
    shared = [*built.model.parameters(), *built.loss.parameters()]
    for module in modules:  # a result of a computation, such as weight_norm's, cannot be copied
        values = vars(module).values()
        shared += [v for v in values if isinstance(v, Tensor) and v.grad_fn is not None]
    parts = {name: getattr(built, name) for name in ("model", "loss", "task", "metrics")}
    try:
        return replace(built, **copy.deepcopy(parts, {id(tensor): tensor for tensor in shared}))
    except Exception:  # each class raises its own error when it cannot be copied
        return built


def training_pass(
    built: Built, batch: Any, what: str, key: int | None = None, backward: bool = True
) -> Any:
    """Send a micro-batch of training forward and backward, as the first step does. Return its loss.

    key: of the random draws. None: that of the first step.
    """
    config, mix = built.config, getattr(built, "mix", None)
    batch = to_device(map_tensors(Tensor.clone, batch), built.device, config.channels_last)
    ctx = Context(0, 1, training=True, device=built.device)
    with goes_through(built, batch, what), output_explained(built.model):
        if mix is not None:
            rng.seed_all(rng.fold_in(rng.make_key(config.seed, Domain.BATCH), RANK))
            batch = to_device(mix(*batch), built.device, config.channels_last)
        rng.seed_all(
            rng.fold_in(rng.make_key(config.seed, Domain.STEP), RANK) if key is None else key
        )
        with autocast(built.precision, built.device), recording():
            values = built.task.training_step(built.model, batch, ctx)
        _check_values(values)
        loss, _ = value_and_n(values["loss"])
        if backward:
            loss.backward()
    return loss.detach()


@torch.no_grad()
def validation_pass(parts: Parts, batch: Any, what: str) -> Any:
    """Send a micro-batch of validation through model and task. Check `monitor`. Return the loss."""
    parts.model.eval()
    ctx = Context(0, 1, training=False, device=parts.device, metrics=parts.metrics)
    rng.seed_all(rng.make_key(parts.config.seed, Domain.VALIDATION))
    batch = to_device(batch, parts.device, parts.config.channels_last)
    computed = autocast(parts.precision, parts.device)
    explained = output_explained(parts.model)
    with goes_through(parts, batch, what), explained, computed, recording() as recorded:
        values = parts.task.validation_step(parts.model, batch, ctx)
        _check_values(values)
        derived = parts.task.derived({k: _number(v) for k, v in {**recorded, **values}.items()})
    parts.model.train()
    names = [f"val/{key}" for key in (*recorded, *values, *derived, *parts.metrics)]
    several = tuple(f"val/{key}/" for key in parts.metrics)  # a metric may give several values
    monitor = parts.config.monitor
    if parts.val is not None and monitor not in names and not monitor.startswith(several):
        raise UserError(f"monitor={monitor} is not one of the values {', '.join(names)}.")
    return values["loss"]


def _check_values(values: Any) -> None:
    """Refuse what no step of a task may return. Raises `UserError`."""
    if not hasattr(values, "items") or "loss" not in values:
        raise UserError("The task's step must return a dict with the key 'loss'.")
    for key, value in values.items():
        if isinstance(value, Share) and key != "loss":
            count_share(key, value)
        else:
            check_scalar(key, value_and_n(value)[0])


def too_large(config: Config) -> str:
    """Return the sentence for a GPU that is out of memory."""
    peak = torch.cuda.max_memory_allocated() / 2**30
    return (
        f"The GPU's memory is too small for batch_size={config.batch_size} with accumulate="
        f"{config.accumulate} (peak {peak:.1f} GiB). Raise accumulate, or lower batch_size."
    )


@contextlib.contextmanager
def goes_through(built: Built, batch: Any, what: str = "first batch") -> Iterator[None]:
    """Turn an error of the model or the task on a batch into `UserError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(too_large(built.config)) from error
    except Exception as error:
        if isinstance(error, Exit | ImportError | NameError) or built.config.log.level == "debug":
            raise
        advice = " Set drop_last=true to leave it out." if what == "smallest training batch" else ""
        raise UserError(
            f"The model or the task failed on the {what} ({shapes(batch)}): "
            f"{describe_error(error)}{advice} Add -v to see the traceback."
        ) from error


@contextlib.contextmanager
def output_explained(model: nn.Module) -> Iterator[None]:
    """If the model returns an object with `logits`, as those of transformers do, add to an error
    how the task gets them."""
    returned: deque[Any] = deque(maxlen=1)
    hook = model.register_forward_hook(lambda *call: returned.append(call[2]))
    try:
        yield
    except Exception as error:
        if returned and hasattr(returned[0], "logits"):
            name = type(returned[0]).__name__
            error.add_note(f"The model returns {name}. In task.py, take model(…).logits.")
        raise
    finally:
        hook.remove()


def _number(value: Any) -> float:
    """Return the first value of a key as a float."""
    value = value[0] if isinstance(value, list) else value
    if isinstance(value, Share):
        return float(value.value())
    return float(value_and_n(value)[0])


def shapes(batch: Any) -> str:
    if isinstance(batch, torch.Tensor):
        return "×".join(map(str, batch.shape)) or "scalar"
    if isinstance(batch, dict):
        return ", ".join(f"{k} {shapes(v)}" for k, v in batch.items())
    if isinstance(batch, list | tuple):
        return ", ".join(shapes(v) for v in batch)
    return type(batch).__name__
