"""Cross-validation: which samples a fold holds out (`data.folds` and `data.fold`)."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .errors import UserError
from .rng import fold_in_array

_KEY = 0xF01D
"""It chooses the folds. It does not depend on the run's seed."""


def check_folds(section: Mapping[str, Any], parameters: Collection[str], takes_any: bool) -> None:
    """Refuse folds of `data` that cannot be, or that its target does not take. Raises `UserError`."""
    given = {"folds", "fold"} & section.keys()
    if not takes_any and (unknown := given - set(parameters)):
        raise UserError(
            f"{section['_target_']} does not take data.{max(unknown)}. Let it take `folds` and `fold`, and "
            "call `split_by_fold` of engine/folds.py."
        )
    folds, fold = section.get("folds"), section.get("fold", 0)
    if type(fold) is not int or ("folds" not in parameters and not takes_any):
        return  # numbers with a meaning of your own
    if folds is None and (fold or given == {"fold"}):
        raise UserError(f"data.fold={fold} needs the number of folds. Set data.folds=5, too.")
    if type(folds) is int:
        _check(folds, fold)


def _check(folds: int, fold: int) -> None:
    if not (folds >= 2 and 0 <= fold < folds):
        asked = f"data.fold={fold} of data.folds={folds}"
        raise UserError(f"{asked} is not possible. Take at least 2 folds, and count them from 0.")


def split_by_fold(classes: ArrayLike, folds: int, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples to train with and those that fold `fold` (from 0) holds out: sorted indices.

    classes: a number for each sample; equal numbers if samples have no classes. The sizes of two folds
    differ by at most one, in each class too. Raises `UserError`.
    """
    _check(folds, fold)
    numbers = np.asarray(classes)
    if len(numbers) < folds:
        raise UserError(f"data.folds={folds} needs as many samples, not {len(numbers)}. Lower it.")
    noise = fold_in_array(_KEY, np.arange(len(numbers)))
    fold_of = np.empty(len(numbers), np.int64)
    fold_of[np.lexsort((noise, numbers))] = np.arange(len(numbers)) % folds  # dealt, class by class
    return np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
