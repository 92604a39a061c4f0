"""Check batches before the run: shapes, keys and `monitor`, in validation and in training."""

import io
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from .. import rng
from ..batches.loader import Loader
from ..errors import UserError
from ..machine.device import move_model
from ..machine.distributed import WORLD_SIZE
from ..rng import Domain
from .hidden_state import check_repeats
from .mean_check import check_mean, says_n
from .optimizer import check_shapes, check_trained, tensor_shapes
from .parts import Built, Parts, lazy_modules
from .passes import copied, training_pass, validation_pass, weights_kept
from .target import describe_error


def check_one_batch(parts: Parts, is_new: bool = True) -> None:
    """Send batches through copies of model and task: the first of validation, and for a new run the
    first of training and the smallest of both. Leaves no trace. Raises `UserError`."""
    loader, own_state = parts.val or parts.train, checked_state(parts)
    batch = loader.first()
    parts.train.seconds = loader.seconds  # the loader chooses its number of workers by it
    with weights_kept(parts):
        tried = copied(parts)
        before = tensor_shapes(tried.model, tried.loss)
        loss = validation_pass(tried, batch, "first batch")
        if is_new:
            if not says_n(tried, loss):
                check_mean(tried, loader)
            if parts.val is not None:
                for smallest in _smallest(parts.val):
                    validation_pass(tried, smallest, "smallest validation batch")
            first = parts.train.read_here(parts.train.plan.batches(0)[0])
            training_pass(tried, first, "first training batch")
            for smallest in _smallest(parts.train):
                training_pass(tried, smallest, "smallest training batch")
        check_trained(parts.optimizer, tried.model, tried.loss)
        check_shapes(before, tensor_shapes(tried.model, tried.loss))
        if is_new and parts.config.deterministic != "false":
            check_repeats(parts, tried, first, batch)
    parts.load_own_state(own_state)


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


def stored(state: Any) -> Any:
    """Return what a checkpoint gives back of `state`."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def materialise(built: Built, loader: Loader) -> None:
    """Send the first batch through lazy modules, which take their shapes from it. Raises `UserError`.

    It is done in eval mode: their values follow from the seed and the shapes alone.
    """
    if not lazy_modules(built):
        return
    key = rng.make_key(built.config.seed, Domain.INIT, 5)
    built.model.eval()
    training_pass(built, loader.first(), "first batch", key, backward=False)
    built.model.train()
    for name in lazy_modules(built):
        raise UserError(f"The lazy module '{name}' gets no batch in eval mode. Give it its sizes.")
    move_model(built.model, built.device, built.config.channels_last)


def _smallest(loader: Loader) -> Iterator[Any]:
    """Read the smallest micro-batch of an epoch, over all processes, if they differ in size."""
    plan = loader.plan
    first, last = plan.batches(0)[0], plan.samples(plan.steps - 1)
    size = max(1, len(last) // plan.micro_batches)
    if size < len(first.indices):
        yield loader.read_here(first._replace(indices=last[-size:]))
