"""The optimizer in a checkpoint: its state by parameter name, and a trial that it resumes."""

import contextlib
import io
import pickle
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import rng
from ..errors import UserError
from ..text import say
from .target import describe_error

Groups = list[dict[str, Any]]

# What the config says of a group. All else in a group may change from step to step.
_FROM_CONFIG = ("params", "name", "names", "lr_scale", "base_lr")


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """Return all that the optimizer's state dict holds, as two keys of a checkpoint.

    "optimizer" has the state of each parameter by its name. "optimizer_values" has the rest: the
    values of each group by its name, and what the optimizer adds.
    """
    whole = optimizer.state_dict()
    state, by_name, groups = dict(whole["state"]), {}, {}
    for group, packed in zip(optimizer.param_groups, whole["param_groups"], strict=True):
        for name, number in zip(group["names"], packed["params"], strict=True):
            if own := state.pop(number, None):
                by_name[name] = own
        groups[group["name"]] = {k: v for k, v in packed.items() if k not in _FROM_CONFIG}
    values = {**whole, "state": state, "param_groups": groups}
    return {"optimizer": by_name, "optimizer_values": values}


def load_optimizer_state(
    optimizer: Optimizer, state: Mapping[str, Any], values: Mapping[str, Any] | None = None
) -> None:
    """Load both keys of a checkpoint. A checkpoint of 0.2.0 or before has no `values`."""
    if values is None:
        values = {"state": {}, "param_groups": {}}
        of_torch = [k for k in type(optimizer).__mro__ if k.__module__.startswith("torch.optim.")]
        if of_torch == [Optimizer]:
            say(
                f"An older release wrote this checkpoint. It lacks values that {type(optimizer).__name__} "
                "may keep outside of its parameters' state, so the run may not go on exactly."
            )
    names = [name for group in optimizer.param_groups for name in group["names"]]
    by_number = {number: dict(state[name]) for number, name in enumerate(names) if name in state}
    groups = optimizer.state_dict()["param_groups"]
    groups = [{**group, **values["param_groups"].get(group["name"], {})} for group in groups]
    whole = {**values, "state": {**values["state"], **by_number}, "param_groups": groups}
    optimizer.load_state_dict(whole)
    for name, parameter in zip(names, _tensors(optimizer), strict=True):
        if name in state:
            own = optimizer.state[parameter]
            own.update({k: _in_its_dtype(v, state[name].get(k)) for k, v in own.items()})


def _in_its_dtype(loaded: Any, stored: Any) -> Any:
    """Return `loaded` in the dtypes of `stored`: torch casts state to the parameter's dtype."""
    if isinstance(stored, Tensor) and isinstance(loaded, Tensor):
        return loaded if loaded.dtype == stored.dtype else stored.to(loaded.device)
    if isinstance(stored, dict) and isinstance(loaded, dict):
        return {key: _in_its_dtype(value, stored.get(key)) for key, value in loaded.items()}
    if isinstance(stored, list | tuple) and isinstance(loaded, list | tuple):
        return type(loaded)(map(_in_its_dtype, loaded, stored))
    return loaded


def is_schedule_free(optimizer: Optimizer) -> bool:
    """Whether it evaluates other weights than it trains, and switches by `train()` and `eval()`."""
    return all(callable(getattr(optimizer, mode, None)) for mode in ("train", "eval"))


def check_resumes(
    make: Callable[[Groups], Optimizer], groups: Groups, sparse: Collection[str]
) -> None:
    """Refuse an optimizer that does not go on exactly from a checkpoint. Raises `UserError`.

    It trains small tensors without a stop, and again from a checkpoint in memory. make: builds the
    optimizer over groups. sparse: names of parameters whose gradients are sparse.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # some optimizers print
        whole, resumed = make(_small(groups, sparse)), make(_small(groups, sparse))
    name, file = f"The optimizer {type(whole).__name__}", io.BytesIO()
    try:
        for optimizer in filter(is_schedule_free, (whole, resumed)):
            optimizer.train()  # type: ignore[attr-defined]
        start = _held(whole)
        _train(whole, range(3), sparse)
        torch.save({**optimizer_state(whole), "weights": _tensors(whole)}, file)
        file.seek(0)
        state = torch.load(file, map_location="cpu", weights_only=True)
        for tensor, stored in zip(_tensors(resumed), state["weights"], strict=True):
            tensor.detach().copy_(stored)
        load_optimizer_state(resumed, state["optimizer"], state["optimizer_values"])
        for optimizer in (whole, resumed):
            _train(optimizer, range(3, 12), sparse)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{name} has state that a checkpoint cannot hold, such as numpy's numbers. A checkpoint "
            "holds tensors, plain numbers and texts. Set another optimizer."
        ) from error
    except Exception as error:
        if "closure" in str(error):
            raise UserError(
                f"{name} needs a closure, which computes the loss several times in a step. The engine "
                "computes the loss once. Set another optimizer."
            ) from error
        raise UserError(
            f"{name} failed in a trial with small tensors. {describe_error(error)} Set other options "
            "or another optimizer."
        ) from error
    other = _held(resumed)
    for what, value in _held(whole).items():
        if value != other.get(what) and value != start.get(what):
            raise UserError(
                f"{name} does not go on exactly from a checkpoint: its {what} differs. Its "
                "state_dict() must hold all that a step changes. Set another optimizer."
            )


def _small(groups: Groups, sparse: Collection[str]) -> Groups:
    """Return the groups with a small tensor for each kind of parameter in them."""
    small = []
    for group in groups:
        named = zip(group["names"], group["params"], strict=True)
        kinds = {(p.ndim, p.dtype, name in sparse): (name, p.detach()) for name, p in named}
        names = [name for name, _ in kinds.values()]
        tensors = [nn.Parameter(p[(slice(4),) * p.ndim].clone()) for _, p in kinds.values()]
        small.append({**group, "names": names, "params": tensors})
    return small


def _train(optimizer: Optimizer, steps: range, sparse: Collection[str]) -> None:
    """Do steps with random gradients, which depend on the step alone."""
    for step in steps:
        rng.seed_all(step)
        for group in optimizer.param_groups:
            for name, tensor in zip(group["names"], group["params"], strict=True):
                grad = torch.randn(tensor.shape).to(tensor)
                tensor.grad = grad.to_sparse(1) if name in sparse else grad
        optimizer.step()


def _tensors(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _held(optimizer: Optimizer) -> dict[str, Any]:
    """Return the weights and the numbers among the attributes. NaN counts as 0."""
    weights = [torch.where(p == p, p, 0).tolist() for p in _tensors(optimizer)]
    numbers = {k: v for k, v in vars(optimizer).items() if isinstance(v, int | float)}
    return {"next step": weights, **numbers}
