"""Pictures in a data set of Hugging Face: a folder that `save_to_disk` wrote, or a name on the Hub."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..engine.api import UserError
from ..engine.datasets.image_folder import ImageFolder
from .arrays import held_out

SPLITS = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}
NOT_HERE = ("root", "skip", "leave_out", "cache")
"""Options of an image folder that have no meaning here."""


class HuggingFace(ImageFolder):
    """Pictures and classes in the columns `image` and `label`; null: the first columns of their kinds.

    `path`: a folder that `save_to_disk` wrote, or a name on the Hub, with its configuration `config`.
    Without a split for them, `val_fraction` and `test_fraction` of each class are held out. Rows without
    a class do not count. `folds`, `fold` and other options: see `ImageFolder`.
    """

    def __init__(
        self,
        path: str,
        config: str | None,
        image: str | None,
        label: str | None,
        streaming: bool = False,
        info: Mapping[str, Any] | None = None,
        forgiving: bool = False,
        **options: Any,
    ) -> None:
        if streaming:
            raise UserError(
                "The order of a stream cannot be repeated. Write a part of it to a folder: "
                "Dataset.from_generator(…).save_to_disk(PATH), then set data.path=PATH."
            )
        if wrong := [name for name in NOT_HERE if options.get(name) is not None]:
            raise UserError(f"data.{wrong[0]} has no meaning for data=huggingface. Leave it out.")
        self.path, self.config, self.columns = path, config, (image, label)
        super().__init__(path, **options, info=info, forgiving=forgiving)

    @cached_property
    def found(self) -> tuple[list[str], dict[str, "Rows"]]:  # type: ignore[override]
        """The class names, and the samples of each split. Raises `UserError`."""
        tables = load(self.path, self.config)
        from datasets import concatenate_datasets  # `load` says if it is missing

        keys = {s: next((n for n in names if n in tables), None) for s, names in SPLITS.items()}
        if keys["train"] is None:
            raise UserError(f"{self.path} has the splits {', '.join(tables)}, but no 'train'.")
        image, label = columns_of(tables[keys["train"]].features, *self.columns)
        own = {split: tables[key] for split, key in keys.items() if key is not None}
        own = {split: table for split, table in own.items() if label in table.features}
        for split, table in own.items():
            if any(table.features.get(n) != own["train"].features[n] for n in (image, label)):
                raise UserError(
                    f"The column '{image}' or '{label}' of {self.path} is of another kind in {split} than in "
                    "train. Give both the same features with cast_column."
                )
        values = [value for table in own.values() for value in table[label]]
        feature = own["train"].features[label]
        names = getattr(getattr(feature, "feature", feature), "names", None)
        names, labels, is_known = as_labels(values, names)
        ends = np.cumsum([len(table) for table in own.values()])
        rows = dict(zip(own, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
        rows = {split: part[is_known[part]] for split, part in rows.items()}
        rows = {split: part for split, part in rows.items() if len(part)}
        if "train" not in rows:
            raise UserError(f"The column '{label}' of {self.path} has no classes. Set data.label.")
        rows = held_out(rows, labels, self.shares, self.folds)
        table = concatenate_datasets([table.select_columns([image]) for table in own.values()])
        return names, {
            split: Rows(table, image, part, torch.from_numpy(labels[part]), self.path)
            for split, part in rows.items()
        }

    def fingerprint(self) -> str:
        """Hash all classes, and some of the pictures."""
        digest = hashlib.sha256()
        for files in self.splits.values():
            digest.update(files.labels.numpy().tobytes())
            for index in np.unique(np.linspace(0, len(files) - 1, 30).astype(int)).tolist():
                digest.update(files.samples[index].getvalue())  # type: ignore[attr-defined]
        return digest.hexdigest()[:16]


class Picture(io.BytesIO):
    """The bytes of a picture file, with a name for messages."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__  # Pillow's messages hold it


class Rows(Sequence[Picture]):
    """Some rows of a table, in place of the paths of pictures. `labels`: as in `Samples`."""

    def __init__(
        self, table: Any, column: str, rows: np.ndarray, labels: Tensor, path: str
    ) -> None:
        from datasets import Image

        self.table, self.column = table.cast_column(column, Image(decode=False)), column
        self.rows, self.labels, self.path = rows, labels, path

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Picture:  # type: ignore[override]
        """Return the file of a picture. Raises `IndexError` from N on."""
        row = int(self.rows[index])
        file = self.table[row][self.column] or {}
        content = file.get("bytes")
        if content is None and file.get("path"):
            content = Path(file["path"]).read_bytes()
        return Picture(content or b"", f"in row {row} of {self.path}")


def load(path: str, config: str | None) -> Mapping[str, Any]:
    """Return the tables of each split. Raises `UserError`."""
    try:
        from datasets import Dataset, load_dataset, load_from_disk
    except ImportError:
        raise UserError("data=huggingface needs datasets. Install it: uv add datasets") from None
    place = Path(path).expanduser().absolute()
    is_reached = place.is_dir() or ask_hub(path)
    try:
        found = load_from_disk(str(place)) if place.is_dir() else load_dataset(path, config)
    except Exception as error:  # the library raises many kinds
        what = "was not written by save_to_disk" if place.is_dir() else "is no folder here"
        why = str(error).splitlines()[0].rstrip(".") if is_reached else "the Hub does not answer"
        raise UserError(
            f"data.path={path} {what}: {why}. Name a folder, or a data set of the Hub."
        ) from error
    return {"train": found} if isinstance(found, Dataset) else dict(found)


def ask_hub(path: str) -> bool:
    """Return whether the Hub answers. If not, let the libraries read only their caches.

    They would ask it again and again, for half a minute.
    """
    from datasets import config
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import HfHubHTTPError

    try:
        HfApi().dataset_info(path, timeout=5)
    except (HfHubHTTPError, ValueError):  # the name is wrong, as `load_dataset` says
        return True
    except Exception:  # each version has other types for the errors of a network
        config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
        return False
    return True


def columns_of(
    features: Mapping[str, Any], image: str | None, label: str | None
) -> tuple[str, str]:
    """Return the columns of the pictures and of the classes. Raises `UserError`."""
    from datasets import ClassLabel, Image

    kinds = {name: getattr(feature, "feature", feature) for name, feature in features.items()}
    pictures = [name for name, feature in features.items() if isinstance(feature, Image)]
    usual = [name for name in ("label", "labels", "class", "category") if name in features]
    classes = [name for name, kind in kinds.items() if isinstance(kind, ClassLabel)] + usual
    for key, given, among in (("image", image, pictures), ("label", label, classes)):
        if (given or among[:1] == []) and given not in (pictures if key == "image" else features):
            found = ", ".join(f"{name} ({type(own).__name__})" for name, own in features.items())
            what = f"data.{key}={given}" if given else f"data.{key}"
            cast = " Other columns need cast_column(NAME, Image())." if key == "image" else ""
            raise UserError(f"{what}: the columns are {found}. Name the one of the {key}s.{cast}")
    return image or pictures[0], label or classes[0]


def as_labels(
    values: Sequence[Any], names: Sequence[str] | None
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return class names, labels as int64 [N] or float32 [N, classes], and which rows have one."""
    has_several = any(isinstance(value, list) for value in values)
    is_known = np.array([value is not None and value != -1 for value in values])
    if names is None:
        known = (value for value, here in zip(values, is_known, strict=True) if here)
        every = [one for value in known for one in (value if has_several else [value])]
        if {type(one) for one in every} not in ({int}, {bool}, {str}, set()):
            raise UserError(
                f"A label is {every[0]!r:.40}. Give whole numbers or texts: data.label."
            )
        numbers = {one: number for number, one in enumerate(sorted(set(every)))}
        names = [str(one) for one in numbers]
    else:
        numbers = {number: number for number in range(len(names))}
    if not has_several:
        labels = [numbers[v] if here else -1 for v, here in zip(values, is_known, strict=True)]
        return list(names), np.array(labels, np.int64), is_known
    table = np.zeros((len(values), len(names)), np.float32)
    for row, value in zip(table, values, strict=True):
        row[[numbers[one] for one in value or ()]] = 1
    return list(names), table, is_known
