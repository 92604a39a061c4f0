"""A loss of several weighted terms, and what the means of torch's own losses are over."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .api import record
from .errors import UserError
from .means import parts_of_whole, value_and_n


class WeightedSum(nn.Module):
    """The sum of weight · term(*inputs). Each term is logged by its name.

    terms: name → {weight: float, loss: module}. Parameters of the terms are trained.
    """

    def __init__(self, terms: dict[str, Any]) -> None:
        super().__init__()
        self.weights: dict[str, float] = {}
        self.terms = nn.ModuleDict()
        if not terms:
            raise UserError("loss.terms is empty. Give it at least one term.")
        for name, term in terms.items():
            if name == "loss":
                raise UserError("loss.terms.loss: 'loss' is the name of the sum. Choose another.")
            unknown = set(term) - {"weight", "loss"}
            if unknown or not isinstance(term.get("loss"), nn.Module):
                raise UserError(f"loss.terms.{name} must be {{weight: 1, loss: {{_target_: …}}}}.")
            weight = term.get("weight", 1.0)
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise UserError(f"loss.terms.{name}.weight={weight!r} must be a number.")
            self.weights[name], self.terms[name] = float(weight), term["loss"]

    def forward(self, *inputs: Any) -> Tensor:
        values = []
        for name, term in self.terms.items():
            value, n = value_and_n(term(*inputs))
            record(name, value, n)
            values.append(self.weights[name] * value)
        return torch.stack(values).sum()


_KINDS = (nn.CrossEntropyLoss, nn.NLLLoss, getattr(nn, "LinearCrossEntropyLoss", nn.NLLLoss))
_COUNTING = {kind.forward for kind in _KINDS}  # a subclass may inherit it


def counting(loss: nn.Module, section: Mapping[str, Any]) -> dict[str, Any]:
    """Return torch's losses in `loss`, by name, whose mean is over class weights or some targets.

    torch ignores the target -100 by default. Counting takes time in each step, so it is left out
    unless the config's `section` says ignore_index.
    """
    found = {}
    for name, module in loss.named_modules():
        if type(module).forward in _COUNTING and module.reduction == "mean":
            is_said = not name and "ignore_index" in section
            if module.weight is not None or module.ignore_index not in (None, -100) or is_said:
                found[name] = module
    return found


def say_what_counts(loss: nn.Module, section: Mapping[str, Any]) -> nn.Module:
    """Let torch's losses say their n as the attribute `mean_over` of the tensors that they return.

    The tensors stay the same, so a task may still compute with them. But then their n is lost.
    """
    for module in counting(loss, section).values():
        module.register_forward_hook(_say_n, with_kwargs=True)
    for module in loss.terms.values() if isinstance(loss, WeightedSum) else (loss,):
        is_of_torch = type(module).forward.__module__[:9] == "torch.nn."
        if getattr(module, "reduction", "") == "sum" and is_of_torch:
            module.register_forward_hook(_scale_sum)
    return loss


def _say_n(module: Any, args: Any, options: Mapping[str, Any], value: Any) -> None:
    target = options["target"] if "target" in options else args[1]
    if target.is_floating_point():  # shares of the classes: torch divides by the samples
        value.mean_over = len(target)
        return
    counts = target != (-100 if module.ignore_index is None else module.ignore_index)
    if module.weight is not None:
        counts = module.weight[target.where(counts, 0).long()] * counts
    value.mean_over = counts.sum()


def _scale_sum(module: nn.Module, args: Any, value: Any) -> Tensor:
    """Return a value whose mean over micro-batches is the sum over the whole step or split."""
    value = value * parts_of_whole[-1]
    value.mean_over = 1 / parts_of_whole[-1]
    return value  # type: ignore[no-any-return]
