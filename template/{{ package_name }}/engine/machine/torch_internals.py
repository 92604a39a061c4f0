"""Adam's fused step without its bookkeeping, and optimizers without torch's compiler.

For a small network, what `torch.optim` does around its kernel takes longer than the kernel, and
importing the compiler, which nothing uses, longer than importing the rest of torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import repeat
from operator import is_not
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim import optimizer as hooks

_ONE = torch.ones((), device="cpu")
"""A number would be made into a tensor at every addition."""


class _Lists(NamedTuple):
    """What the kernel takes of a group besides its gradients."""

    params: list[Tensor]
    averages: list[Tensor]
    squares: list[Tensor]
    counts: list[Tensor]
    """Each parameter's step count: its part of …"""
    all_counts: Tensor
    """… this, so that one addition counts for all."""


class FusedAdam(Adam):
    """`Adam(fused=True)`, bit for bit: the same kernel over lists that are kept between steps.

    State that is replaced from outside is noticed where the group's first parameter is among it.
    """

    _kernel = staticmethod(torch._fused_adam_)
    _kept: list[_Lists | None] | None = None
    """For each group; None where a parameter had no gradient."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        if closure is not None or self._is_watched():
            self._kept = None  # a hook may change what they were taken from
            return super().step(closure)
        with torch.no_grad():
            if self._kept is None:
                if not _can_be_short(self):
                    return super().step()
                self._kept = [None] * len(self.param_groups)
            for number, group in enumerate(self.param_groups):
                grads: list[Any] = [parameter.grad for parameter in group["params"]]
                lists = self._kept[number]
                if (
                    lists is None
                    or not all(map(is_not, grads, repeat(None)))
                    or lists.counts[0] is not self.state[lists.params[0]].get("step")
                ):
                    grads = [grad for grad in grads if grad is not None]
                    if not grads:
                        continue
                    lists = self._collect(group)
                    self._kept[number] = lists if len(grads) == len(group["params"]) else None
                beta1, beta2 = group["betas"]
                lists.all_counts.add_(_ONE)
                self._kernel(
                    lists.params,
                    grads,
                    lists.averages,
                    lists.squares,
                    [],
                    lists.counts,
                    lr=group["lr"],
                    beta1=beta1,
                    beta2=beta2,
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    amsgrad=False,
                    maximize=group["maximize"],
                )
        return None

    # Otherwise torch would wrap it at the first load_state_dict, and call hooks a second time.
    step.hooked = True  # type: ignore[attr-defined]

    def _collect(self, group: dict[str, Any]) -> _Lists:
        """The lists of those parameters that have gradients."""
        lists: list[list[Tensor]] = [[] for _ in range(6)]
        self._init_group(group, *lists)
        params, _, averages, squares, _, counts = lists
        all_counts = torch.stack([count.reshape(()) for count in counts])
        counts = list(all_counts.unbind())
        for parameter, count in zip(params, counts, strict=True):
            self.state[parameter]["step"] = count
        return _Lists(params, averages, squares, counts, all_counts)

    def _is_watched(self) -> bool:
        """Whether a step has more to do: hooks, or the scaled gradients of fp16."""
        return bool(
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or hooks._global_optimizer_pre_hooks
            or hooks._global_optimizer_post_hooks
            or getattr(self, "grad_scale", None) is not None
            or getattr(self, "found_inf", None) is not None
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self._kept = None
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._kept = None
        super().load_state_dict(state_dict)


class FusedAdamW(FusedAdam, AdamW):
    """`AdamW(fused=True)`, bit for bit."""

    _kernel = staticmethod(torch._fused_adamw_)


class QuickSGD(SGD):
    """`SGD`, whose step does not import torch's compiler to tell it where not to compile."""

    step = torch.no_grad()(inspect.unwrap(SGD.step))

    def _init_group(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        momenta: list[Tensor | None],
    ) -> bool:
        is_sparse: bool = super()._init_group(group, params, grads, momenta)
        if getattr(self, "found_inf", None) is not None and not group["dampening"]:
            # Where fp16's scale is too large for the first step, torch leaves them uninitialised.
            momenta[:] = [
                torch.zeros_like(parameter) if momentum is None else momentum
                for parameter, momentum in zip(params, momenta, strict=False)
            ]
        return is_sparse


def shorten(optimizer: Optimizer) -> None:
    """Make an optimizer of torch into one of these, where its options allow it."""
    kinds: dict[type, type] = {Adam: FusedAdam, AdamW: FusedAdamW}
    if type(optimizer) in kinds and _can_be_short(optimizer):
        optimizer.__class__ = kinds[type(optimizer)]
    elif type(optimizer) is SGD and not optimizer.defaults["differentiable"]:
        optimizer.__class__ = QuickSGD
        optimizer._patch_step_function()  # calls hooks, as of every optimizer


def _can_be_short(optimizer: Optimizer) -> bool:
    simple = {
        "amsgrad": False,
        "capturable": False,
        "differentiable": False,
        "fused": True,
        "decoupled_weight_decay": isinstance(optimizer, AdamW),
    }
    return all(
        all(group.get(key) is value for key, value in simple.items())
        and not isinstance(group["lr"], Tensor)
        and len({(p.device, p.dtype) for p in group["params"]}) == 1
        and len(set(group["params"])) == len(group["params"])
        and not any(p.is_complex() for p in group["params"])
        for group in optimizer.param_groups
    )


def leave_compiler_out() -> None:
    """Some methods of optimizers are marked as nothing to compile at their first call, for which
    torch imports its compiler; here they are marked without it."""
    for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        plain = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if plain is not None and not hasattr(plain, "__dynamo_disable"):
            setattr(plain, "__dynamo_disable", plain)
