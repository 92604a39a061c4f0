"""Check before a run that means over micro-batches and validation batches are exact."""

import contextlib
import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..batches.loader import Loader
from ..errors import UserError
from ..losses import counting
from ..means import value_and_n
from ..text import logger, number
from .parts import Parts
from .passes import validation_pass

_ADVICE = "Return Mean(value, n) of engine/api.py, where n is the sum of the weights."


def says_n(parts: Parts, loss: Any) -> bool:
    """Return whether one of torch's losses says the n of `loss`. Warn if it does, but the n got lost.

    Raises `UserError` if a step has several micro-batches, because they need it.
    """
    telling, (value, n) = counting(parts.loss, parts.config.loss), value_and_n(loss)
    if not telling or n is not None:
        return hasattr(value, "mean_over")
    name = ".".join(["loss", *filter(None, telling)][:2])
    sentence = f"{name} is a mean over class weights or some targets. A computation lost their "
    sentence += f"sum, so means over batches are not exact. {_ADVICE}"
    if parts.train.plan.micro_batches > 1:
        raise UserError(f"{sentence} Or train with accumulate=1 on one process.")
    logger.warning(sentence)
    return True


def check_mean(parts: Parts, loader: Loader) -> None:
    """Warn if the loss of some samples is a weighted mean over two parts of them, but says no n.

    If steps have several micro-batches, also if it is no mean at all, such as a contrastive loss.
    """
    plan, is_divided = loader.plan, parts.train.plan.micro_batches > 1
    micro_batch = plan.batch_size // plan.micro_batches
    size = min(64, 4 * micro_batch, plan.size)  # without gradients, four take less memory than one
    takes = (loader.seconds or 0) * 3 * size / micro_batch  # seconds
    if size < 2 or takes > 1 or not (is_divided or plan.steps > 1):
        return
    samples = np.linspace(0, plan.size - 1, size).astype(int)  # they may be sorted by class
    samples = samples if parts.val else plan.samples(0)[:size]
    found = []
    with contextlib.suppress(Exception):  # an unreadable sample, or a task that needs whole batches
        other_draws = replace(parts, config=replace(parts.config, seed=parts.config.seed + 1))
        first_part, second_part = np.split(samples, [size // 3 or 1])
        for built, part in (
            (parts, samples),
            (other_draws, samples),
            (parts, first_part),
            (parts, second_part),
        ):
            batch = loader.read_here(plan.batches(0)[0]._replace(indices=part))
            value, n = value_and_n(validation_pass(built, batch, "few samples"), len(part))
            found.append((float(value), float(n)))
    if len(found) < 4:
        return
    (whole, _), (again, _), (first, n), (second, m) = found
    mean = (first * n + second * m) / (n + m or 1)
    close = partial(math.isclose, whole, rel_tol=1e-3 if parts.precision == "fp32" else 2e-2)
    if close(mean) or not close(again) or not math.isfinite(whole + mean):  # a mean, or random
        return
    if is_divided or min(first, second) < whole < max(first, second):
        logger.warning(
            f"The loss of {size} samples is {number(whole)}, but the mean over two parts of them is "
            f"{number(mean)}. Micro-batches and validation batches are averaged in this way. If the "
            f"loss is a weighted mean: {_ADVICE}"
        )
