"""Single batches through copies of model and task, outside of training."""

import contextlib
import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from .. import rng
from ..api import Context, Share, check_scalar, count_share, recording
from ..config.schema import Config
from ..errors import DeviceError, Exit, UserError, of_device
from ..machine.device import autocast, map_tensors, to_device
from ..machine.distributed import RANK, WORLD_SIZE, from_all
from ..means import value_and_n
from ..rng import Domain
from .parts import Built, Parts
from .target import describe_error

_SMALL = 1 << 28
"""Bytes of weights that may be copied. A large model is not."""


def copied(parts: Parts) -> Parts:
    """Return `parts` with copies of model, loss, task and metrics, which share their weights.

    What cannot be copied, such as a model with an open file, is returned itself.
    """
    modules = [*parts.model.modules(), *parts.loss.modules()]
    held = [t for m in modules for t in (*m.parameters(False), *vars(m).values())]
    # A result of a computation, such as weight_norm's, cannot be copied.
    shared = [t for t in held if isinstance(t, nn.Parameter) or getattr(t, "grad_fn", None)]
    own = {name: getattr(parts, name) for name in ("model", "loss", "task", "metrics")}
    try:
        return replace(parts, **copy.deepcopy(own, {id(tensor): tensor for tensor in shared}))
    except Exception:  # each class raises its own error when it cannot be copied
        return parts


def one_pass(
    parts: Parts, batch: Any, what: str, step: int = 0, training: bool = True
) -> dict[str, Any]:
    """Send a micro-batch forward, and in training also backward. Return the values by key.

    what: the batch in words, for messages. step: whose random draws it takes. Weights stay as they
    are, without gradients. Raises `UserError`.
    """
    config, device, task = parts.config, parts.device, parts.task
    batch = to_device(map_tensors(Tensor.clone, batch), device, config.channels_last)
    ctx = Context(0, 1, training, device, {} if training else parts.metrics)
    number = step * parts.train.plan.micro_batches + RANK
    domain = Domain.STEP if training else Domain.VALIDATION
    parts.model.train(training)
    with _weights_kept(parts), goes_through(parts, batch, what), torch.set_grad_enabled(training):
        if training and parts.mix is not None:
            rng.seed_all(rng.make_key(config.seed, Domain.BATCH, number))
            batch = to_device(parts.mix(*batch), device, config.channels_last)
        rng.seed_all(rng.make_key(config.seed, domain, number))
        with autocast(parts.precision, device), recording() as recorded:
            compute = task.training_step if training else task.validation_step
            values = compute(parts.model, batch, ctx)
        if not hasattr(values, "items") or "loss" not in values:
            raise UserError("The task's step must return a dict with the key 'loss'.")
        numbers = {}
        for key, value in {**{k: v[0] for k, v in recorded.items()}, **values}.items():
            if isinstance(value, Share) and key != "loss":
                count_share(key, value)
                value = value.value()
            value, _ = value_and_n(value)
            check_scalar(key, value)
            numbers[key] = value.item()
        derived = task.derived(numbers)
        if training:
            value_and_n(values["loss"])[0].backward()
        named = parts.model.named_parameters()
        unused = [name for name, p in named if p.requires_grad and p.grad is None]
    parts.model.train()
    is_shared = training and WORLD_SIZE > 1 and not parts.in_turn
    if is_shared and (names := sorted({*chain.from_iterable(from_all(unused))})):
        raise UserError(
            f"The {what} does not use {', '.join(names[:3])}{' …' if names[3:] else ''}. On several "
            "processes each step must use all parameters. Remove or freeze them (requires_grad)."
        )
    return {**numbers, **derived, "loss": values["loss"]}


@contextlib.contextmanager
def _weights_kept(parts: Parts) -> Iterator[None]:
    """Drop the gradients of the block, and put back weights that it changes, unless they are many."""
    weights = [*parts.model.parameters(), *parts.loss.parameters()]
    is_small = sum(weight.nbytes for weight in weights) < _SMALL
    kept = [weight.detach().clone() for weight in weights if is_small]
    try:
        yield
    finally:
        for weight in weights:
            weight.grad = None
        for weight, value in zip(weights, kept, strict=False):
            weight.data.copy_(value)


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
    returned: deque[Any] = deque(maxlen=1)
    hook = built.model.register_forward_hook(lambda *call: returned.append(call[2]))
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(too_large(built.config)) from error
    except Exception as error:
        is_told = isinstance(error, Exit | ImportError | NameError) or of_device(error)
        if is_told or built.config.log.level == "debug":
            raise
        text = f"The model or the task failed on the {what} ({shapes(batch)}): "
        text += describe_error(error)
        if returned and hasattr(returned[0], "logits"):  # as the models of transformers do
            name = type(returned[0]).__name__
            text += f" The model returns {name}. In task.py, take model(…).logits."
        if what == "smallest training batch":
            text += " Set drop_last=true to leave it out."
        raise UserError(f"{text} Add -v to see the traceback.") from error
    finally:
        hook.remove()


def shapes(batch: Any) -> str:
    if isinstance(batch, torch.Tensor):
        return "×".join(map(str, batch.shape)) or "scalar"
    if isinstance(batch, dict):
        return ", ".join(f"{k} {shapes(v)}" for k, v in batch.items())
    if isinstance(batch, list | tuple):
        return ", ".join(shapes(v) for v in batch)
    return type(batch).__name__
