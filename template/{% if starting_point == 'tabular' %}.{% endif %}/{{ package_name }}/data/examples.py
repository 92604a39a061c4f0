"""Tables that come with scikit-learn."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..engine.api import UserError
from .table import Table


class Example(Table):
    """The data set `dataset`: "breast_cancer", "iris" and "wine" have classes, "diabetes" numbers."""

    def __init__(
        self,
        dataset: str,
        val_fraction: float,
        test_fraction: float,
        folds: int | None = None,
        fold: int = 0,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        if dataset not in ("breast_cancer", "diabetes", "iris", "wine"):
            raise UserError(
                f"data.dataset={dataset} must be breast_cancer, diabetes, iris or wine."
            )
        self.dataset = dataset
        shares: dict[str, Any] = {"val_fraction": val_fraction, "test_fraction": test_fraction}
        super().__init__(None, "target", **shares, folds=folds, fold=fold, info=info)

    def load(self) -> pd.DataFrame:
        from sklearn import datasets

        found = getattr(datasets, f"load_{self.dataset}")(as_frame=True)
        if "target_names" not in found:
            return found.frame
        names = dict(enumerate(map(str, found.target_names)))
        return found.frame.assign(target=found.target.map(names))
