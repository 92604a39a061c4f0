"""Means, and what they are means over. `api.py` offers `Mean` to your files."""

from typing import Any, NamedTuple

from torch import Tensor


class Mean(NamedTuple):
    """A mean over `n` things: samples, tokens, valid pixels. It is weighted by `n` everywhere.

    A plain tensor is a mean over the samples of its batch. A loss may return a `Mean`, too.
    """

    value: Tensor
    n: Tensor | float


def value_and_n(value: Any, n: Any = None) -> tuple[Tensor, Any]:
    """Return a value and what it is a mean over: `n`, unless the value itself says it."""
    while isinstance(value, Mean):
        value, n = value
    n = getattr(value, "mean_over", n)  # see `say_what_counts` in losses.py
    if isinstance(n, Tensor) and n.is_cpu and not getattr(value, "is_cpu", True):
        n = n.item()  # copying it to the GPU would wait
    return value, n


parts_of_whole: list[float] = [1.0]
"""For each `recording` that is running: the samples of its step or split, divided by its own."""
