"""Documents of any length as batches of bytes: an example of a data set with its own `collate`."""

import codecs
import hashlib
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..engine.api import Data, UserError
from ..engine.folds import split_by_fold
from ..engine.paths import files_below
from ..engine.rng import Permutation

END = 0
"""The byte before and after each document. It also pads a batch."""
UNKNOWN = -100
"""The target where nothing is predicted. torch's cross-entropy ignores it."""


Given = Sequence[bytes] | Mapping[str, Sequence[bytes]]
"""Documents, or those of each split."""


class Document(NamedTuple):
    """The input and the target at each position: int64 [length]."""

    inputs: Tensor
    targets: Tensor


class Documents(Dataset):
    """Texts as bytes."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Document:
        tokens = torch.tensor([END, *self.texts[index], END])
        return Document(tokens[:-1], tokens[1:])


class Prompts(Dataset):
    """Files whose text the model continues. Their targets are unknown."""

    def __init__(self, paths: Sequence[str], context: int) -> None:
        self.paths, self.context = paths, context

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Document:
        text = read_text(self.paths[index]).rstrip(b"\n")
        if len(text) >= self.context:
            raise UserError(
                f"{self.paths[index]} has {len(text):,} bytes, but the model sees at most "
                f"{self.context} bytes, with its continuation. Give a shorter text."
            )
        inputs = torch.tensor([END, *text])
        return Document(inputs, torch.full_like(inputs, UNKNOWN))


class Text(Data):
    """Documents. A tenth is held out for validation, and another tenth for test. Documents are split
    whole. If there are fewer than ten, each is cut: its last tenth is for test, the tenth before for
    validation. With `folds`, what is not for test is cut into so many parts, in the same way, and part
    `fold` is for validation. Or `documents` holds those of each split. It may be a function that returns
    documents. Then they are read when a split is asked for.

    `context` is the longest text that a model sees, in bytes. Longer documents are cut.
    Batches are padded to a multiple of `pad_to` bytes.
    """

    endings = (".txt",)

    def __init__(
        self,
        documents: Given | Callable[[], Given],
        context: int,
        pad_to: int,
        folds: int | None = None,
        fold: int = 0,
    ) -> None:
        if context < 2 or pad_to < 1 or context % pad_to:
            raise UserError(
                f"data.context={context} must be at least 2 and a multiple of data.pad_to={pad_to}."
            )
        self.pad_to = pad_to
        # A model or task gets these values if it has parameters with these names.
        self.info = {"vocabulary": 256, "context": context}
        self.documents, self.folds = documents, (folds, fold)

    @cached_property
    def splits(self) -> dict[str, Documents]:
        """Raises `UserError`."""
        given = self.documents() if callable(self.documents) else self.documents
        parts = given if isinstance(given, Mapping) else split_whole(given, *self.folds)
        # A document of `length` bytes gives length + 1 predictions: the last one is its end.
        length = self.info["context"] - 1
        splits = {
            name: Documents([d[i : i + length] for d in own for i in range(0, len(d), length)])
            for name, own in parts.items()
        }
        if not all(map(len, splits.values())):
            raise UserError(
                f"There are {len(given)} documents, too few or too short to hold some out. Give at "
                "least 10, or a longer text."
            )
        return splits

    def split(self, name: str) -> Dataset | None:
        return self.splits.get(name)

    def made_up(self) -> Document:
        return made_up(self.info["context"])

    def fingerprint(self) -> str:
        """Hash the whole text."""
        digest = hashlib.sha256()
        for documents in self.splits.values():
            for text in documents.texts:
                digest.update(b"%d " % len(text) + text)
        return digest.hexdigest()[:16]

    def files(self, paths: Sequence[str]) -> Dataset:
        return Prompts(paths, self.info["context"])

    def collate(self, samples: list[Document]) -> Document:
        return padded(samples, self.pad_to)


class TextFiles(Text):
    """All .txt files below `root`, or one file. Empty lines separate documents.

    A document that comes again is left out, so that nothing of validation is in training.
    """

    def __init__(
        self, root: str, context: int, pad_to: int, folds: int | None = None, fold: int = 0
    ) -> None:
        super().__init__(partial(read_documents, root), context, pad_to, folds, fold)


def read_documents(root: str) -> list[bytes]:
    """Return the documents of all .txt files below `root`, or of one file. Raises `UserError`."""
    place = Path(root).expanduser()
    paths = [str(place)] if place.is_file() else files_below(place, Text.endings)
    if not paths:
        raise UserError(f"data.root={root} has no .txt file below it. Name another folder.")
    parts = [part.strip() for path in paths for part in re.split(rb"\n\s*\n", read_text(path))]
    return list(dict.fromkeys(part for part in parts if part))


def made_up(context: int) -> Document:
    """Return two samples of `context` tokens. All are number 0."""
    return Document(*torch.zeros(2, 2, context, dtype=torch.int64))


def padded(samples: Sequence[Document], pad_to: int = 1) -> Document:
    """Return inputs and targets, int64 [B, length], padded on the right to a multiple of `pad_to`."""
    longest = max(len(sample.inputs) for sample in samples)
    length = -(-longest // pad_to) * pad_to
    inputs = torch.full((len(samples), length), END)
    targets = torch.full((len(samples), length), UNKNOWN)
    for row, sample in enumerate(samples):
        inputs[row, : len(sample.inputs)] = sample.inputs
        targets[row, : len(sample.targets)] = sample.targets
    return Document(inputs, targets)


def split_whole(
    documents: Sequence[bytes], folds: int | None = None, fold: int = 0
) -> dict[str, list[bytes]]:
    """Return the documents of each split, or parts of them if they are fewer than ten."""
    if len(documents) >= 10:
        # The same split in every run: its key is a constant, not the run's seed.
        order = Permutation(len(documents), key=0).slice(0, len(documents))
        tenth = len(documents) // 10
        val, test, train = np.split(order, [tenth, 2 * tenth])
        if folds is not None:
            rest = np.sort(np.concatenate([val, train]))
            train, val = (rest[p] for p in split_by_fold(np.zeros(len(rest)), folds, fold))
        parts = {"train": train, "val": val, "test": test}
        return {name: [documents[i] for i in part] for name, part in parts.items()}
    found: dict[str, list[bytes]] = {"train": [], "val": [], "test": []}
    for document in documents:
        end = len(document) * 9 // 10
        held = (len(document) * 8 // 10, end)
        if folds is not None:
            held = (end * fold // folds, end * (fold + 1) // folds)
        found["val"].append(document[slice(*held)])
        found["train"] += [document[: held[0]], document[held[1] : end]]
        found["test"].append(document[end:])
    return found


_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: str) -> bytes:
    """Return a text file as UTF-8, with line breaks as on Unix. Raises `UserError`."""
    text = Path(path).read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if text.startswith(mark)), "utf-8")
    try:
        text = text.decode(encoding).encode()
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise UserError(f"{path} is damaged: {error}. Save it as UTF-8.") from None
        told = f"{path} is not UTF-8 (byte {error.start}). Its bytes are read as they are."
        warnings.warn(told, stacklevel=2)
    if END in text:
        raise UserError(f"{path} holds zero bytes, so it is no UTF-8 text. Save it as UTF-8.")
    return re.sub(rb"\r\n?", b"\n", text)
