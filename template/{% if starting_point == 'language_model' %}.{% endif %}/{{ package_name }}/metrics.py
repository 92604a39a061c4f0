"""Your metrics. What is no mean, such as the perplexity, is derived from means in task.py."""

import math


def perplexity(loss: float) -> float:
    """Among how many equally likely tokens the model hesitates: exp of the mean loss of a token.

    It must be taken of the mean: the mean of the perplexities of batches would be larger.
    """
    return math.exp(min(loss, 700.0))  # beyond that, no float holds it
