"""Tables: numbers and categories in, a class or a number out."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..engine.api import Data, UserError
from ..engine.folds import split_by_fold
from ..engine.rng import Permutation

MANY = 20
"""A column of whole numbers has at most so many different values if they are classes."""


class Table(Data):
    """One sample per row of a CSV or Parquet file. All columns except `target` and `ignore` are inputs.

    Columns of numbers are scaled to mean 0 and deviation 1. A missing value becomes 0, and a column
    with missing values gets a second input: 1 where it is missing. Other columns are categories.
    Means, deviations and categories are those of the training rows. They are kept in `info`, which a
    run stores, so that `predict` uses them.

    `kind`: "classification", "regression", or "auto", which looks at the target. `val_fraction` and
    `test_fraction` of the rows are held out. With `folds`, the rows that are not for the test are cut
    into so many parts, and part `fold` (from 0) is held out for validation. For classes, each part
    has the same share of each class.
    """

    endings = (".csv", ".tsv", ".parquet")

    def __init__(
        self,
        path: str | None,
        target: str,
        kind: str = "auto",
        ignore: Sequence[str] = (),
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        folds: int | None = None,
        fold: int = 0,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self.target, self.kind, self.ignore = path, target, kind, list(ignore)
        self.shares, self.folds, self.fold = (val_fraction, test_fraction), folds, fold
        if kind not in ("auto", "classification", "regression"):
            raise UserError(f"data.kind={kind} must be auto, classification or regression.")
        if not (val_fraction > 0 and test_fraction >= 0 and val_fraction + test_fraction < 1):
            both = f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction}"
            raise UserError(f"{both} must be above 0, and below 1 together.")
        self.info = dict(self.fitted() if info is None else info)

    def load(self) -> pd.DataFrame:
        """Return the whole table. Raises `UserError`."""
        assert self.path is not None
        return read_table(self.path)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The rows that have a target. Raises `UserError`."""
        frame = self.load()
        for name in (self.target, *self.ignore):
            if name not in frame.columns:
                key = "target" if name == self.target else "ignore"
                columns = ", ".join(map(str, frame.columns[:20]))
                raise UserError(f"data.{key}: the table has no column '{name}'. It has {columns}.")
        frame = frame[frame[self.target].notna()].reset_index(drop=True)
        values = frame[self.target]
        if not len(values):
            raise UserError(f"No row has a value in the column '{self.target}'. Add rows that do.")
        if (
            pd.api.types.is_float_dtype(values)
            and ((values % 1 == 0) & (values.abs() < 2**53)).all()
        ):
            return frame.assign(**{self.target: values.astype("int64")})  # gaps made floats of them
        return frame

    @cached_property
    def is_classes(self) -> bool:
        """Whether the target is a class. All rows decide, not only those of a split."""
        if self.kind != "auto":
            return self.kind == "classification"
        values = self.frame[self.target]
        is_float = pd.api.types.is_float_dtype(values) and (values % 1 != 0).any()
        is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        return not is_number or (not is_float and values.nunique() <= MANY)

    @cached_property
    def parts(self) -> dict[str, np.ndarray]:
        """The rows of each split: the same in every run, because their key is a constant."""
        values = self.frame[self.target]
        every = np.arange(len(values))
        groups = values.groupby(values).indices if self.is_classes else {0: every}
        if len(groups) > max(1, len(values) / 2):
            many = f"{len(groups)} different values in {len(values)} rows"
            raise UserError(f"data.target: {many} are no classes. Set data.kind=regression.")
        parts: dict[str, list[np.ndarray]] = {"test": [], "val": [], "train": []}
        classes = np.zeros(len(values), np.int64)
        for number, rows in enumerate(groups.values()):
            order = rows[Permutation(len(rows), key=number).slice(0, len(rows))]
            test = round(self.shares[1] * len(rows))
            val = test + round(self.shares[0] * len(rows))
            for name, part in zip(parts, np.split(order, [test, val]), strict=True):
                parts[name].append(part)
            classes[rows] = number
        found = {name: np.sort(np.concatenate(own)) for name, own in parts.items()}
        if self.folds is not None:
            rest = np.sort(np.concatenate([found["train"], found["val"]]))
            kept, held = split_by_fold(classes[rest], self.folds, self.fold)
            found |= {"train": rest[kept], "val": rest[held]}
        for name in ("train", "val"):
            if not len(found[name]):
                raise UserError(
                    f"{len(values)} rows leave none for {name}. Change data.val_fraction."
                )
        return found

    def fitted(self) -> dict[str, Any]:
        """Return what the training rows say about the columns: plain values. Raises `UserError`."""
        rows = self.frame.iloc[self.parts["train"]]
        numbers: dict[str, list[Any]] = {}
        categories: dict[str, list[str]] = {}
        for name in rows.columns.difference([self.target, *self.ignore], sort=False):
            column = rows[name]
            # True and False with gaps are objects for pandas.
            is_truth = pd.api.types.infer_dtype(column) == "boolean"
            if is_truth or pd.api.types.is_numeric_dtype(column):
                values = column.astype("float64").replace([np.inf, -np.inf], np.nan)
                if values.notna().any():
                    numbers[name] = [*mean_and_spread(values), bool(values.isna().any())]
                continue
            texts = column.dropna().astype(str)
            if len(texts) > 100 and texts.nunique() > len(texts) / 2:
                raise UserError(
                    f"Column '{name}' has {texts.nunique()} different texts in {len(texts)} rows. Leave "
                    f"it out: data.ignore=[{name}]."
                )
            categories[name] = sorted(texts.unique())
        if not numbers and not categories:
            raise UserError("The table has no column besides the target and data.ignore.")
        info = {"numbers": numbers, "categories": categories}
        target = rows[self.target]
        if self.is_classes:
            names = sorted(self.frame[self.target].unique().tolist())
            if len(names) < 2:
                raise UserError(
                    f"All rows have the class '{names[0]}' in '{self.target}'. Give at least 2 classes."
                )
            return {**info, "classes": len(names), "class_names": list(map(str, names))}
        if not pd.api.types.is_numeric_dtype(target):
            raise UserError(
                f"data.kind=regression, but the column '{self.target}' is not of numbers."
            )
        if not np.isfinite(self.frame[self.target].astype("float64")).all():
            raise UserError(f"Column '{self.target}' has infinite numbers. Leave out their rows.")
        return {**info, "target": mean_and_spread(target)}

    def rows(self, frame: pd.DataFrame, labelled: bool = True) -> "Rows":
        """Return rows as samples. Raises `UserError` for a column that is missing."""
        columns, categories = list(self.info["numbers"]), self.info["categories"]
        if lacking := [name for name in (*columns, *categories) if name not in frame.columns]:
            raise UserError(f"The table lacks {', '.join(lacking[:5])}, which the model needs.")
        values = np.empty((len(frame), len(columns)))
        for place, name in enumerate(columns):
            values[:, place] = pd.to_numeric(frame[name], errors="coerce").astype("float64")
        mean, spread, has_gaps = np.array([*self.info["numbers"].values()]).reshape(-1, 3).T
        is_missing = ~np.isfinite(values)
        values = np.where(is_missing, 0.0, (values - mean) / spread)
        values = np.concatenate([values, is_missing[:, has_gaps > 0]], axis=1)
        codes = np.empty((len(frame), len(categories)), np.int64)
        for place, (name, known) in enumerate(categories.items()):
            # 0 stands for a missing value, and for one that no training row has.
            texts = frame[name].where(frame[name].isna(), frame[name].astype(str))
            codes[:, place] = pd.Index(known).get_indexer(texts) + 1
        return Rows(
            torch.from_numpy(values.astype(np.float32)),
            torch.from_numpy(codes),
            self._targets(frame[self.target]) if labelled else self._unknown(len(frame)),
        )

    def _targets(self, values: pd.Series) -> Tensor:
        if "target" in self.info:
            mean, spread = self.info["target"]
            return torch.from_numpy(
                ((values.astype("float64") - mean) / spread).to_numpy(np.float32)
            )
        known = self.info["class_names"]
        codes = pd.Index(known).get_indexer(values.astype(str))
        if (codes < 0).any():
            other = values[codes < 0].iloc[0]
            raise UserError(f"The table has the class '{other}', which the run does not know.")
        return torch.from_numpy(codes.astype(np.int64))

    def _unknown(self, count: int) -> Tensor:
        return (
            torch.full((count,), torch.nan) if "target" in self.info else torch.full((count,), -1)
        )

    def split(self, name: str) -> Dataset | None:
        part = self.parts.get(name)
        return None if part is None or not len(part) else self.rows(self.frame.iloc[part])

    def files(self, paths: Sequence[str]) -> Dataset:
        texts = dict.fromkeys(self.info["categories"], str)  # "12" stays "12" beside an empty cell
        frames = [read_table(path, texts) for path in paths]
        rows = self.rows(pd.concat(frames, ignore_index=True), labelled=False)
        pairs = zip(paths, frames, strict=True)
        rows.names = [f"{path}:{line + 1}" for path, frame in pairs for line in range(len(frame))]
        return rows

    def made_up(self) -> tuple[Tensor, ...]:
        """Return two empty rows."""
        columns = [*self.info["numbers"], *self.info["categories"]]
        return self.rows(pd.DataFrame(index=[0, 1], columns=columns), labelled=False).tensors

    def fingerprint(self) -> str:
        hashes = pd.util.hash_pandas_object(self.frame, index=False).to_numpy()
        return hashlib.sha256(hashes.tobytes()).hexdigest()[:16]


class Rows(Dataset):
    """Rows in memory. A sample is (numbers float32 [N], categories int64 [C], target)."""

    names: list[str]

    def __init__(self, numbers: Tensor, categories: Tensor, targets: Tensor) -> None:
        self.tensors = numbers, categories, targets
        self.sample_bytes = 4 * numbers.shape[1] + 8 * categories.shape[1] + 8

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def batch(self, indices: np.ndarray, keys: np.ndarray) -> tuple[Tensor, ...]:
        """Return whole batches at once, which the engine prefers (see api.BatchDataset)."""
        chosen = torch.from_numpy(indices)
        return tuple(tensor[chosen] for tensor in self.tensors)


def mean_and_spread(values: pd.Series) -> list[float]:
    """Return the mean and the standard deviation. For a constant, the deviation is 1."""
    mean, spread = float(values.mean()), float(values.std(ddof=0))
    return [mean, spread if spread > 1e-12 * abs(mean) else 1.0]


def read_table(path: str, dtype: Mapping[str, type] | None = None) -> pd.DataFrame:
    """Return the table of a CSV, TSV or Parquet file. Raises `UserError`.

    dtype: of columns in a file of text.
    """
    place = Path(path).expanduser().absolute()
    try:
        if place.suffix == ".parquet":
            frame = pd.read_parquet(place)
            kinds = {name: pd.api.types.infer_dtype(frame[name]) for name in frame.columns}
            for name in [name for name, kind in kinds.items() if kind == "mixed"]:
                frame[name] = frame[name].map(str, na_action="ignore")  # lists and dicts
            return frame.astype({n: "float64" for n, kind in kinds.items() if kind == "decimal"})
        options = {"encoding": "utf-8-sig", "dtype": dtype}
        header = pd.read_csv(place, sep="\0", nrows=0, quoting=csv.QUOTE_NONE, **options).columns[0]
        marks = "\t,;" if ".tsv" in place.suffixes else ",;\t"
        sep = next((mark for mark in marks if mark in header), ",")
        # With low_memory, pandas would choose a type for each part of a column.
        return pd.read_csv(place, sep=sep, low_memory=False, **options)
    except FileNotFoundError:
        raise UserError(f"{place} does not exist. Name a file that exists.") from None
    except ImportError:
        raise UserError("Parquet files need pyarrow. Install it: uv add pyarrow") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{place} cannot be read as a table: {str(error).splitlines()[0]}"
        ) from error
