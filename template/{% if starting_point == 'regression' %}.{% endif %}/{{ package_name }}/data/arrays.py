"""Your own numbers as arrays of numpy: a folder of .npy files, or one .npz file."""

import hashlib
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..engine.api import Data, UserError
from ..engine.folds import split_by_fold
from ..engine.rng import Permutation

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


class Arrays(Data):
    """Inputs `x`, [N] or [N, inputs], and targets `y`, [N] or [N, outputs].

    `path` is a folder of .npy files, which are not read as a whole, or a .npz file. The names of the
    arrays may hold a split: x_train, train_x. Without arrays for them, `val_fraction` and
    `test_fraction` of the rows are held out. `folds` and `fold`: cross-validation.

    Inputs are scaled to mean 0 and deviation 1 in the training rows. `info` keeps that for `predict`.
    """

    endings = (".npy",)

    def __init__(
        self,
        path: str,
        x: str,
        y: str,
        val_fraction: float,
        test_fraction: float,
        folds: int | None = None,
        fold: int = 0,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        if not (val_fraction > 0 and test_fraction >= 0 and val_fraction + test_fraction < 1):
            both = f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction}"
            raise UserError(f"{both} must be above 0, and below 1 together.")
        self.place, self.names = Path(path).expanduser().absolute(), (x, y)
        self.shares, self.folds = (
            {"val": val_fraction, "test": test_fraction},
            folds and (folds, fold),
        )
        self.info = dict(self.measured() if info is None else info)

    @cached_property
    def found(self) -> tuple["Stored", "Stored", dict[str, np.ndarray]]:
        """Inputs, targets, and the rows of each split. Raises `UserError`."""
        known = names_in(self.place)
        keys = {split: [array_of(known, name, split) for name in self.names] for split in SPLITS}
        if None in keys["train"]:
            key, name = ("x", self.names[0]) if keys["train"][0] is None else ("y", self.names[1])
            raise UserError(
                f"{self.place} has no array '{name}', but {', '.join(known)}. Set data.{key}=NAME."
            )
        for split, (own_x, own_y) in keys.items():
            if (own_x is None) != (own_y is None):
                lacking = self.names[own_x is not None]
                sentence = f"'{own_x or own_y}' is not read: {split} has no '{lacking}'."
                warnings.warn(sentence, stacklevel=2)
        pairs = {split: (str(x), str(y)) for split, (x, y) in keys.items() if x and y}
        inputs, targets = (Stored(self.place, names) for names in zip(*pairs.values(), strict=True))
        for name, x, y in zip(pairs, inputs.arrays, targets.arrays, strict=True):
            if len(x) != len(y) or (x.shape[1], y.shape[1]) != (inputs.width, targets.width):
                raise UserError(
                    f"The arrays of {name} are {list(x.shape)} and {list(y.shape)}. Give as many rows of "
                    "each, and as many columns in each split."
                )
            if not x.size or not y.size:
                raise UserError(f"The arrays of {name} are empty. Give rows, or leave them out.")
        ends = np.cumsum([len(array) for array in inputs.arrays])
        rows = dict(zip(pairs, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
        # The same split in every run: its key is a constant, not the run's seed.
        order = rows["train"][Permutation(len(rows["train"]), key=0).slice(0, len(rows["train"]))]
        for split, share in self.shares.items():
            if split not in rows and share > 0:
                count = max(1, round(share * len(rows["train"])))
                rows[split], order = np.sort(order[:count]), order[count:]
        rows["train"] = np.sort(order)
        if self.folds:
            pool = np.sort(np.concatenate([rows["train"], rows["val"]]))
            train, val = split_by_fold(np.zeros(len(pool)), *self.folds)
            rows |= {"train": pool[train], "val": pool[val]}
        if not len(rows["train"]):
            raise UserError(f"{self.place} leaves no row for training. Give it more.")
        return inputs, targets, rows

    def measured(self) -> dict[str, Any]:
        """Return what the training rows say: plain values. Raises `UserError`."""
        inputs, targets, rows = self.found
        every = np.concatenate(list(rows.values()))
        parts = np.array_split(every, -(-len(every) // 4096))
        if not all(
            np.isfinite(own.take(part)).all() for part in parts for own in (inputs, targets)
        ):
            raise UserError(f"{self.place} has NaN or infinite numbers. Leave out their rows.")
        parts = np.array_split(rows["train"], -(-len(rows["train"]) // 4096))
        mean = sum(inputs.take(part).sum(axis=0) for part in parts) / len(rows["train"])
        squares = sum(((inputs.take(part) - mean) ** 2).sum(axis=0) for part in parts)
        spread = np.sqrt(squares / len(rows["train"]))
        spread = np.where(spread > 1e-9 * np.abs(mean), spread, 1.0)  # of a constant column: 1
        info = {"inputs": inputs.width, "outputs": targets.width}
        return {**info, "scale": [mean.tolist(), spread.tolist()]}

    def split(self, name: str) -> Dataset | None:
        inputs, targets, rows = self.found
        return Rows(inputs, targets, rows[name], self.info["scale"]) if name in rows else None

    def files(self, paths: Sequence[str]) -> Dataset:
        if wrong := [path for path in paths if Path(path).suffix != ".npy"]:
            raise UserError(f"{wrong[0]} is not a .npy file. Save its rows with np.save.")
        inputs = Stored(Path("/"), tuple(str(Path(p).absolute().with_suffix("")) for p in paths))
        if other := {array.shape[1] for array in inputs.arrays} - {self.info["inputs"]}:
            raise UserError(
                f"The files have {other.pop()} columns, but the model takes {self.info['inputs']}."
            )
        count = sum(map(len, inputs.arrays))
        rows = Rows(inputs, None, np.arange(count), self.info["scale"], self.info["outputs"])
        pairs = zip(paths, inputs.arrays, strict=True)
        rows.names = [f"{path}:{line + 1}" for path, own in pairs for line in range(len(own))]
        return rows

    def made_up(self) -> tuple[Tensor, Tensor]:
        return torch.rand(2, self.info["inputs"]), torch.zeros(2, self.info["outputs"])

    def fingerprint(self) -> str:
        """Hash some of the rows, and the number of all."""
        inputs, targets, rows = self.found
        count = sum(map(len, rows.values()))
        some = np.unique(np.linspace(0, count - 1, 1000).astype(int))
        content = inputs.take(some).tobytes() + targets.take(some).tobytes()
        return hashlib.sha256(f"{count}".encode() + content).hexdigest()[:16]


class Rows(Dataset):
    """Rows of arrays. A sample is (x, y), each float32. Without targets, y is NaN."""

    names: list[str]

    def __init__(
        self,
        inputs: "Stored",
        targets: "Stored | None",
        rows: np.ndarray,
        scale: Sequence[Sequence[float]],
        outputs: int = 1,
    ) -> None:
        self.inputs, self.targets, self.rows, self.outputs = inputs, targets, rows, outputs
        self.mean, self.spread = (np.array(own) for own in scale)
        self.sample_bytes = 4 * (len(self.mean) + outputs)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.batch(np.array([index]), np.zeros(1, np.uint64))
        return x[0], y[0]

    def batch(self, indices: np.ndarray, keys: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return whole batches at once, which the engine prefers (see api.BatchDataset)."""
        rows = self.rows[indices]
        x = (self.inputs.take(rows) - self.mean) / self.spread
        y = np.full((len(rows), self.outputs), np.nan)
        if self.targets is not None:
            y = self.targets.take(rows)
        return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.float32))


class Stored:
    """Arrays of files, one after the other."""

    def __init__(self, place: Path, names: tuple[str, ...]) -> None:
        self.place, self.names = place, names

    @cached_property
    def arrays(self) -> list[np.ndarray]:
        """Each [N, columns]. Raises `UserError`."""
        try:
            if self.place.is_dir():
                found = [np.load(self.place / f"{name}.npy", mmap_mode="r") for name in self.names]
            else:
                with np.load(self.place) as file:
                    found = [np.asarray(file[name]) for name in self.names]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(
                f"{self.place} cannot be read: {str(error).rstrip('.')}. Save plain numbers with np.save, and "
                "texts after .astype(str)."
            ) from None
        for name, array in zip(self.names, found, strict=True):
            if array.ndim not in (1, 2) or array.dtype.kind not in "biuf":
                raise UserError(
                    f"{name} is {array.dtype} {list(array.shape)}. Give numbers, [N] or [N, columns]."
                )
        return [array if array.ndim == 2 else array[:, None] for array in found]

    @property
    def width(self) -> int:
        return int(self.arrays[0].shape[1])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return rows, float64 [B, columns]."""
        starts = np.cumsum([0, *map(len, self.arrays)])
        taken = np.empty((len(rows), self.width))
        for array, start in zip(self.arrays, starts, strict=False):
            here = (rows >= start) & (rows < start + len(array))
            taken[here] = array[rows[here] - start]
        return taken


def names_in(place: Path) -> list[str]:
    """Return the names of the arrays in a folder or a .npz file. Raises `UserError`."""
    if place.is_dir() and (names := sorted(path.stem for path in place.glob("*.npy"))):
        return names
    if place.suffix != ".npz" or not place.is_file():
        raise UserError(f"data.path={place} must be a folder of .npy files, or a .npz file.")
    try:
        with np.load(place) as file:
            return list(file.files)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{place} cannot be read: {error}. Save it again with np.savez.") from None


def array_of(known: Sequence[str], name: str, split: str) -> str | None:
    """Return the array `name` of a split. An array without a split is for training."""
    spelled = [made for own in SPLITS[split] for made in (f"{name}_{own}", f"{own}_{name}")]
    return next((n for n in [*spelled, *([name] if split == "train" else [])] if n in known), None)
