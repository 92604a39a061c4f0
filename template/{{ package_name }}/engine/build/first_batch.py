"""Check one batch before the run: shapes, keys and `monitor`."""

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from .. import rng
from ..api import Context, Mean, Share, check_scalar, count_share, recording
from ..config.schema import Config
from ..errors import Exit, UserError
from ..machine.device import autocast, to_device
from ..rng import Domain
from .optimizer import check_shapes, check_trained, tensor_shapes
from .parts import Parts
from .target import describe_error


@torch.no_grad()
def check_one_batch(parts: Parts) -> None:
    """Send one validation batch through model and task, in eval mode. Raises `UserError`."""
    shapes_before = tensor_shapes(parts.model, parts.loss)
    loader = parts.val or parts.train
    batch = loader.first()
    parts.train.seconds = loader.seconds  # the loader chooses its number of workers by it
    parts.model.eval()
    ctx = Context(0, 1, training=False, device=parts.device, metrics=parts.metrics)
    rng.seed_all(rng.make_key(parts.config.seed, Domain.VALIDATION))
    batch = to_device(batch, parts.device, parts.config.channels_last)
    computed = autocast(parts.precision, parts.device)
    explained = output_explained(parts.model)
    with goes_through(parts, batch), explained, computed, recording() as recorded:
        values = parts.task.validation_step(parts.model, batch, ctx)
        if not hasattr(values, "items") or "loss" not in values:
            raise UserError("The task's step must return a dict with the key 'loss'.")
        for key, value in values.items():
            if isinstance(value, Share) and key != "loss":
                count_share(key, value)
            else:
                check_scalar(key, value.value if isinstance(value, Mean) else value)
        derived = parts.task.derived({k: _number(v) for k, v in {**recorded, **values}.items()})
    check_trained(parts.optimizer, parts.model, parts.loss)
    check_shapes(shapes_before, tensor_shapes(parts.model, parts.loss))
    names = [f"val/{key}" for key in (*recorded, *values, *derived, *parts.metrics)]
    several = tuple(f"val/{key}/" for key in parts.metrics)  # a metric may give several values
    monitor = parts.config.monitor
    if parts.val is not None and monitor not in names and not monitor.startswith(several):
        raise UserError(f"monitor={monitor} is not one of the values {', '.join(names)}.")


def too_large(config: Config) -> str:
    """Return the sentence for a GPU that is out of memory."""
    peak = torch.cuda.max_memory_allocated() / 2**30
    return (
        f"The GPU's memory is too small for batch_size={config.batch_size} with accumulate="
        f"{config.accumulate} (peak {peak:.1f} GiB). Raise accumulate, or lower batch_size."
    )


@contextlib.contextmanager
def goes_through(parts: Parts, batch: Any) -> Iterator[None]:
    """Turn an error of the model or the task on the first batch into `UserError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(too_large(parts.config)) from error
    except Exception as error:
        if isinstance(error, Exit | ImportError | NameError) or parts.config.log.level == "debug":
            raise
        raise UserError(
            f"The model or the task failed on the first batch ({shapes(batch)}): "
            f"{describe_error(error)} Add -v to see the traceback."
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
    return float(value.value if isinstance(value, Mean) else value)


def shapes(batch: Any) -> str:
    if isinstance(batch, torch.Tensor):
        return "×".join(map(str, batch.shape)) or "scalar"
    if isinstance(batch, dict):
        return ", ".join(f"{k} {shapes(v)}" for k, v in batch.items())
    if isinstance(batch, list | tuple):
        return ", ".join(shapes(v) for v in batch)
    return type(batch).__name__
