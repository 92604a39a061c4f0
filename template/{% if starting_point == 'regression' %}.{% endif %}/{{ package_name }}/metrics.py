"""Your metrics: functions of a batch, whose values a task returns to have them logged."""

from torch import Tensor


def squared_error(predicted: Tensor, y: Tensor) -> Tensor:
    """The mean of (predicted - y)². Both float, of one shape; returns a scalar."""
    return (predicted - y).square().mean()
