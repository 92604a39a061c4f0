"""A loss of several weighted terms, from the config."""

from typing import Any

import torch
from torch import Tensor, nn

from .api import record
from .errors import UserError


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
                raise UserError(f"loss.terms.{name} must be {{weight: 1.0, loss: {{…}}}}.")
            weight = term.get("weight", 1.0)
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise UserError(f"loss.terms.{name}.weight={weight!r} must be a number.")
            self.weights[name], self.terms[name] = float(weight), term["loss"]

    def forward(self, *inputs: Any) -> Tensor:
        values = []
        for name, term in self.terms.items():
            value = term(*inputs)
            record(name, value)
            values.append(self.weights[name] * value)
        return torch.stack(values).sum()
