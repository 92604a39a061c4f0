"""The order of an epoch's samples that the data decide themselves."""

from collections.abc import Callable

import numpy as np

from .. import rng
from ..errors import UserError
from ..rng import Domain


def own_order(
    order: Callable[[int, int], np.ndarray | None], seed: int, samples: int, epoch: int
) -> np.ndarray:
    """Return the `Data.order` of `epoch` (from 0) over `samples`, int64. Raises `UserError`."""
    key = rng.make_key(seed, Domain.ORDER, epoch)
    rng.seed_all(key)  # for an order that draws from numpy.random
    indices = np.asarray(order(epoch + 1, key))
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        given = f"{indices.dtype} of shape {list(indices.shape)}"
        raise UserError(f"order(…) must return whole numbers in one dimension, not {given}.")
    for index in (indices.min(initial=0), indices.max(initial=0)):
        if not 0 <= index < samples:
            where = f"sample {index} in epoch {epoch + 1}"
            raise UserError(f"order(…) names {where}. It must lie between 0 and {samples - 1}.")
    return indices.astype(np.int64)
