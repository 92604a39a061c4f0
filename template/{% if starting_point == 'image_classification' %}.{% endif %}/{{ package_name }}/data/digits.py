"""Handwritten digits: a small example of a data set."""

import gzip
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from ..engine.api import Data, UserError
from ..engine.datasets.arrays import ArrayImages
from ..engine.folds import split_by_fold
from ..engine.rng import Permutation


class Digits(Data):
    """scikit-learn's 1,797 pictures of 8×8 pixels: 1,297 to train, 250 each to validate and test.

    Training pictures are moved at random by up to `shift` pixels. With `folds`, the 1,547 pictures
    that are not for the test are cut into so many parts, and part `fold` is for validation.
    """

    def __init__(self, shift: int, folds: int | None = None, fold: int = 0) -> None:
        # A model or task gets these values if it has parameters with these names.
        self.info = {
            "shape": (1, 8, 8),
            "classes": 10,
            "class_names": [str(digit) for digit in range(10)],
        }
        table = read_table()
        images = (table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
        labels = table[:, 64].astype(np.int64)

        # The same split in every run: its key is a constant, not the run's seed.
        order = Permutation(len(labels), key=0).slice(0, len(labels))
        train, val, test = np.split(order, [1297, 1547])
        if folds is not None:
            train, val = (order[part] for part in split_by_fold(labels[order[:1547]], folds, fold))
        parts = {"train": train, "val": val, "test": test}
        self.splits = {
            name: ArrayImages(
                images[part],
                labels[part],
                mean=0.3,
                std=0.37,
                shift=shift if name == "train" else 0,
            )
            for name, part in parts.items()
        }

    def split(self, name: str) -> Dataset | None:
        return self.splits.get(name)

    def files(self, paths: Sequence[str]) -> Dataset:
        return self.splits["val"].files(paths)


def read_table() -> np.ndarray:
    """Return float64 [1797, 65]: in each row 64 pixels from 0 to 16, then the digit."""
    # Importing scikit-learn takes most of a second, so its file is read directly.
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise UserError("data=digits needs scikit-learn. Install it: uv add scikit-learn")
    path = Path(found.origin).parent / "datasets/data/digits.csv.gz"
    with gzip.open(path, "rt") as file:
        return np.loadtxt(file, delimiter=",")
