"""Your metrics: functions of a batch. The task returns their values, and the engine logs them."""

from torch import Tensor


def squared_error(predicted: Tensor, y: Tensor) -> Tensor:
    """Return the mean of (predicted - y)², a scalar. Both are float and have the same shape."""
    return (predicted - y).square().mean()
