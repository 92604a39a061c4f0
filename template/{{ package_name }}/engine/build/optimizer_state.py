"""The optimizer in a checkpoint: its state by parameter name, and a trial that it resumes."""

import contextlib
import copy
import io
import pickle
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from operator import methodcaller
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from .. import rng
from ..errors import UserError, of_device
from ..machine.device import map_tensors
from ..text import say
from .differences import difference
from .target import describe_error

Groups = list[dict[str, Any]]

OF_THE_ENGINE = ("params", "name", "names", "lr_scale", "base_lr")
"""The keys of a group that come from the config. Each other key may change in a step."""


def named_tensors(groups: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of all groups with their names, in the optimizer's order."""
    for group in groups:
        yield from zip(group["names"], group["params"], strict=True)


def reloaded(state: Any) -> Any:
    """Return `state` as a checkpoint would give it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """Return all that the optimizer's state dict holds, as two keys of a checkpoint: the state of each
    parameter by its name; and the rest, with the values of each group by its name."""
    whole = optimizer.state_dict()
    state = dict(whole["state"])
    names = [name for name, _ in named_tensors(optimizer.param_groups)]
    by_name = {name: own for n, name in enumerate(names) if (own := state.pop(n, None))}
    groups = {
        group["name"]: {k: v for k, v in group.items() if k not in OF_THE_ENGINE}
        for group in whole["param_groups"]
    }
    values = {**whole, "state": state, "param_groups": groups}
    return {"optimizer": by_name, "optimizer_values": values}


def load_optimizer_state(
    optimizer: Optimizer, state: Mapping[str, Any], values: Mapping[str, Any] | None = None
) -> None:
    """Load both keys of a checkpoint. A checkpoint of 0.2.0 or before has no `values`."""
    if values is None:
        values = {"state": {}, "param_groups": {}}
        kind = type(optimizer)
        if [k for k in kind.__mro__ if k.__module__.startswith("torch.optim.")] == [Optimizer]:
            say(f"This checkpoint lacks values that {kind.__name__} may keep. The run may differ.")
    named = dict(named_tensors(optimizer.param_groups))
    by_number = {number: dict(state[name]) for number, name in enumerate(named) if name in state}
    groups = [
        {**group, **values["param_groups"].get(group["name"], {})}
        for group in optimizer.state_dict()["param_groups"]
    ]
    whole = {**values, "state": {**values["state"], **by_number}, "param_groups": groups}
    optimizer.load_state_dict(whole)
    for name in named.keys() & state.keys():  # torch casts all but `step` to the parameter's dtype
        kept = {key: value for key, value in state[name].items() if key != "step"}
        move = methodcaller("to", named[name].device)
        optimizer.state[named[name]].update(map_tensors(move, kept))


def cannot_use(error: Exception) -> str:
    """Return the sentence for an optimizer that cannot use its state in a checkpoint."""
    why = f"The optimizer cannot go on from its state in the checkpoint: {describe_error(error)}"
    return f"{why} Delete the newest checkpoint to go on from the one before."


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
    name = f"The optimizer {type(whole).__name__}"
    try:
        for optimizer in filter(is_schedule_free, (whole, resumed)):
            optimizer.train()  # type: ignore[attr-defined]
        start = {what: _copied(value) for what, value in _held(whole).items()}
        _train(whole, range(3), sparse)
        state = {**optimizer_state(whole), "weights": [t.detach() for t in _tensors(whole)]}
        state = reloaded(map_tensors(torch.clone, state))  # a saver, too, copies each tensor alone
        for tensor, weight in zip(_tensors(resumed), state["weights"], strict=True):
            tensor.detach().copy_(weight)
        load_optimizer_state(resumed, state["optimizer"], state["optimizer_values"])
        for optimizer in (whole, resumed):
            _train(optimizer, range(3, 12), sparse)
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError):
            why = "has state that a checkpoint cannot hold: other than tensors, numbers and texts."
        elif "closure" in str(error):
            why = "needs a closure, but the engine computes the loss once in a step."
        else:
            told = of_device(error) or describe_error(error)
            why = f"failed in a trial with small tensors. {told}"
        raise UserError(f"{name} {why} Set other options or another optimizer.") from error
    other = _held(resumed)
    for what, value in _held(whole).items():
        if difference(value, other.get(what)) and difference(value, start.get(what)):
            raise UserError(
                f"{name} does not go on exactly from a checkpoint: its {what} differs. Its state_dict() "
                "must hold all that a step changes."
            )


def _small(groups: Groups, sparse: Collection[str]) -> Groups:
    """Return the groups with two small tensors for each kind of parameter in them."""
    small = []
    for group in groups:
        chosen: dict[str, nn.Parameter] = {}
        count: Counter[Any] = Counter()
        for name, p in named_tensors([group]):
            count[kind := (p.ndim, p.dtype, name in sparse)] += 1
            if count[kind] <= 2:
                chosen[name] = nn.Parameter(_corner(p.detach()))
        small.append({**group, "names": [*chosen], "params": [*chosen.values()]})
    return small


def _corner(tensor: torch.Tensor) -> torch.Tensor:
    if hasattr(tensor, "to_local"):  # of a divided one, this process may hold nothing
        return torch.ones([min(4, n) for n in tensor.shape]).to(tensor.device, tensor.dtype)
    return tensor[(slice(4),) * tensor.ndim].clone()


def _train(optimizer: Optimizer, steps: range, sparse: Collection[str]) -> None:
    """Do steps with random gradients, and learning rates, which depend on the step alone."""
    for step in steps:
        rng.seed_all(step)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] / (1 + step % 3)
        for name, tensor in named_tensors(optimizer.param_groups):
            # Kernels want a gradient to lie in memory like its tensor.
            grad = torch.empty_like(tensor).copy_(torch.randn(tensor.shape))
            tensor.grad = grad.to_sparse(1) if name in sparse else grad
        optimizer.step()


def _tensors(optimizer: Optimizer) -> list[nn.Parameter]:
    return [tensor for _, tensor in named_tensors(optimizer.param_groups)]


def _held(optimizer: Optimizer) -> dict[str, Any]:
    """Return the weights, the state and all attributes."""
    attributes = {k: v for k, v in vars(optimizer).items() if k not in ("state", "param_groups")}
    return {"next step": _tensors(optimizer), "state": optimizer_state(optimizer), **attributes}


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # such as a process group, which no step changes
        return value
