"""Parts of the training set and of an epoch."""

from fractions import Fraction

import numpy as np

from .. import rng
from ..api import Data
from ..config.schema import Config, is_count_or_share
from ..errors import UserError
from ..rng import Domain, Permutation
from .target import locate, own_keys


def fixed_subset(config: Config, data: Data, size: int) -> np.ndarray | None:
    """Return the samples to train on, int64, ascending. None: all `size`. Raises `UserError`.

    They do not depend on the run's seed, and a smaller subset is part of each larger one. If the
    data's `_target_` takes an argument `subset`, the argument means what the target makes of it.
    """
    wanted = config.data.get("subset")
    target = locate(config.data["_target_"], "data._target_", config.allowed_packages)
    if wanted is None or "subset" not in own_keys(target, "data"):
        return None
    if not is_count_or_share(wanted) or wanted > size:
        raise UserError(
            f"data.subset={wanted} is not possible. It must be a number of samples, from 1 to {size}, "
            "or a share above 0.0 and up to 1.0."
        )
    if data.order(1, 0) is not None:
        raise UserError("data.subset and the data's own order(…) exclude each other. Remove one.")
    count = max(1, round(wanted * size)) if isinstance(wanted, float) else wanted
    return np.sort(Permutation(size, rng.make_key(0, Domain.INIT, 5)).slice(0, count))


def steps_between(epochs: int | float, steps_per_epoch: int) -> int | Fraction:
    """Return the optimizer steps between validations. 0: only at the end.

    A validation follows the first step at or after each multiple. So 0.25 validates four times an
    epoch, for any length of the epoch.
    """
    steps = Fraction(str(epochs)) * steps_per_epoch  # as written: 0.1 is a tenth
    steps = max(steps, Fraction(1)) if steps else steps
    return int(steps) if steps.denominator == 1 else steps
