"""Texts in a data set of Hugging Face: a folder that `save_to_disk` wrote, or a name on the Hub."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.api import UserError
from ..engine.folds import split_by_fold
from ..engine.rng import Permutation
from .text import END, Text, split_whole

SPLITS = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}


class HuggingFace(Text):
    """The texts in the column `text`: a document in each row. They are kept in memory.

    `path`: a folder that `save_to_disk` wrote, or a name on the Hub, with its configuration `config`. Its
    splits are taken as they are. Without any besides train, documents are held out as in `Text`. A
    document of validation or test, and one that comes again, is left out of training.
    """

    def __init__(
        self,
        path: str,
        config: str | None,
        text: str,
        context: int,
        pad_to: int,
        folds: int | None = None,
        fold: int = 0,
        streaming: bool = False,
    ) -> None:
        if streaming:
            raise UserError(
                "The order of a stream cannot be repeated. Write a part of it to a folder: "
                "Dataset.from_generator(…).save_to_disk(PATH), then set data.path=PATH."
            )
        super().__init__(partial(documents, path, config, text, folds, fold), context, pad_to)


def documents(path: str, config: str | None, text: str, *parts: Any) -> dict[str, Any]:
    """Return the documents of each split. `parts`: as `divided` takes them. Raises `UserError`."""
    tables = load(path, config)
    given = {
        split: next((n for n in names if n in tables), None) for split, names in SPLITS.items()
    }
    if given["train"] is None:
        raise UserError(f"{path} has the splits {', '.join(tables)}, but no 'train'.")
    found = {s: texts(tables[key], text, path) for s, key in given.items() if key is not None}
    return divided(found, *parts)


def divided(given: Mapping[str, Sequence[bytes]], folds: int | None, fold: int) -> dict[str, Any]:
    """Return the documents of each split. The same in every run: no key is the run's seed."""
    held_out = {text for split, own in given.items() if split != "train" for text in own}
    train = [text for text in dict.fromkeys(given["train"]) if text not in held_out]
    if len(given) == 1:
        return split_whole(train, folds, fold)
    if "val" in given and folds is None:
        return {**given, "train": train}
    pool = [*train, *dict.fromkeys(given.get("val", ()))]
    if folds is not None:
        kept, held = split_by_fold(np.zeros(len(pool)), folds, fold)
    else:
        held, kept = np.split(Permutation(len(pool), key=0).slice(0, len(pool)), [len(pool) // 10])
    parts = {"train": kept, "val": held}
    return {**given, **{name: [pool[index] for index in part] for name, part in parts.items()}}


def texts(table: Any, column: str, path: str) -> list[bytes]:
    """Return the documents of a table that are not empty. Raises `UserError`."""
    if column not in table.column_names:
        columns = ", ".join(table.column_names)
        raise UserError(f"{path} has no column '{column}', but {columns}. Set data.text=NAME.")
    found = [text.strip().encode() for text in table[column] if isinstance(text, str)]
    if any(END in text for text in found):
        raise UserError(f"{path} has texts with zero bytes. Remove them.")
    return [text for text in found if text]


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
