"""Parameter groups and the optimizer; its state is kept by parameter name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .build import build
from .errors import UserError


def named_parameters(model: nn.Module, loss: nn.Module) -> dict[str, nn.Parameter]:
    """What is trained: the model's parameters, and the loss's as "loss.<name>"."""
    parameters = dict(model.named_parameters())
    parameters.update({f"loss.{name}": p for name, p in loss.named_parameters()})
    return {name: p for name, p in parameters.items() if p.requires_grad}


def build_optimizer(
    section: Mapping[str, Any],
    lr: float,
    parameters: Mapping[str, nn.Parameter],
    allowed: Iterable[str],
) -> Optimizer:
    """The optimizer over one group, "all". Every group has a `name` and its `base_lr`."""
    if not parameters:
        raise UserError("The model has no parameter that can be trained.")
    groups = [{"name": "all", "params": list(parameters.values()), "lr": lr, "base_lr": lr}]
    optimizer = build(
        section, "optimizer", Optimizer, list(allowed), given={"params": groups, "lr": lr}
    )
    assert isinstance(optimizer, Optimizer)
    return optimizer


def optimizer_state(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, Any]]:
    """The optimizer's state (moments, step counts …) by parameter name."""
    return {name: dict(optimizer.state[p]) for name, p in parameters.items() if optimizer.state[p]}


def load_optimizer_state(
    optimizer: Optimizer,
    parameters: Mapping[str, nn.Parameter],
    state: Mapping[str, Mapping[str, Any]],
) -> None:
    """Give every parameter the state stored under its name."""
    names = {p: name for name, p in parameters.items()}
    current = optimizer.state_dict()
    by_index: dict[int, Any] = {}
    for group, numbered in zip(optimizer.param_groups, current["param_groups"], strict=True):
        for parameter, number in zip(group["params"], numbered["params"], strict=True):
            if names[parameter] in state:
                by_index[number] = dict(state[names[parameter]])
    optimizer.load_state_dict({"state": by_index, "param_groups": current["param_groups"]})


class Averaged:
    """An exponential moving average of a model's weights: e ← decay · e + (1 - decay) · w."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        import copy

        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        own: list[Tensor] = list(self.model.parameters())
        new: list[Tensor] = [p.detach() for p in model.parameters()]
        torch._foreach_lerp_(own, new, 1 - self.decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
