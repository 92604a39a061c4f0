"""Your metrics. The perplexity is not a mean: `derived` in task.py computes it from a mean."""

import math


def perplexity(loss: float) -> float:
    """Return exp of the mean loss per token: the number of equally likely tokens to guess from.

    `loss` must be the mean over all tokens. A mean of the perplexities of batches would be larger.
    """
    return math.exp(min(loss, 700.0))  # exp of a larger number is too large for a float
