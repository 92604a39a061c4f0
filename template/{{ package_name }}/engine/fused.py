"""AdamW's fused step without its bookkeeping, and optimizers without torch's compiler.

For a small network, what `torch.optim` does around its kernel takes longer than the kernel, and
importing the compiler, which nothing uses, longer than importing the rest of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from operator import is_not
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim import optimizer as hooks


class FusedAdamW(AdamW):
    """`AdamW(fused=True)`, bit for bit: the same kernel over lists that are kept between steps."""

    _lists: list[list[list[Tensor]] | None] | None = None
    """For each group parameters, both averages and step counts; None where they are not kept."""

    @classmethod
    def adopt(cls, optimizer: Optimizer) -> None:
        """Make an `AdamW` that can be stepped so into one of this kind; leave others alone."""
        simple = {"amsgrad": False, "capturable": False, "differentiable": False, "fused": True}
        if type(optimizer) is AdamW and all(
            all(group[key] is value for key, value in simple.items())
            and not isinstance(group["lr"], Tensor)
            and len({(p.device, p.dtype) for p in group["params"]}) == 1
            and not any(p.is_complex() for p in group["params"])
            for group in optimizer.param_groups
        ):
            optimizer.__class__ = cls

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        if closure is not None or self._is_watched():
            self._lists = None  # a hook may change what they were taken from
            return super().step(closure)
        with torch.no_grad():
            if self._lists is None:
                self._lists = [None] * len(self.param_groups)
            for number, group in enumerate(self.param_groups):
                grads: list[Any] = [parameter.grad for parameter in group["params"]]
                lists = self._lists[number]
                if lists is None or not all(map(is_not, grads, repeat(None))):
                    collected: list[list[Tensor]] = [[] for _ in range(6)]
                    self._init_group(group, *collected)
                    params, grads, averages, squares, _, counts = collected
                    if len(params) == len(group["params"]):
                        self._lists[number] = [params, averages, squares, counts]
                else:
                    params, averages, squares, counts = lists
                if not params:
                    continue
                beta1, beta2 = group["betas"]
                torch._foreach_add_(counts, 1)
                torch._fused_adamw_(
                    params,
                    grads,
                    averages,
                    squares,
                    [],
                    counts,
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
        self._lists = None
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._lists = None
        super().load_state_dict(state_dict)


def leave_compiler_out() -> None:
    """Some methods of optimizers are marked as nothing to compile at their first call, for which
    torch imports its compiler; here they are marked without it."""
    for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        plain = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if plain is not None and not hasattr(plain, "__dynamo_disable"):
            setattr(plain, "__dynamo_disable", plain)
