"""Documents of any length as batches of bytes: an example of a data set with its own `collate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..engine.api import Data, UserError
from ..engine.paths import ROOT
from ..engine.rng import Permutation

END = 0
"""The byte before and after each document. It also pads a batch."""
UNKNOWN = -100
"""The target where nothing is predicted. torch's cross-entropy ignores it."""


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
        text = Path(self.paths[index]).read_bytes().rstrip(b"\n")
        if len(text) >= self.context:
            raise UserError(
                f"{self.paths[index]} has {len(text):,} bytes, but the model sees at most "
                f"{self.context} bytes, with its continuation. Give a shorter text."
            )
        inputs = torch.tensor([END, *text])
        return Document(inputs, torch.full_like(inputs, UNKNOWN))


class Text(Data):
    """Documents. A tenth is held out for validation, and another tenth for test.

    `context` is the longest text that a model sees, in bytes. Longer documents are cut.
    Batches are padded to a multiple of `pad_to` bytes.
    """

    endings = (".txt",)

    def __init__(self, documents: Sequence[bytes], context: int, pad_to: int) -> None:
        if context < 2 or pad_to < 1 or context % pad_to:
            raise UserError(
                f"data.context={context} must be at least 2 and a multiple of data.pad_to={pad_to}."
            )
        self.pad_to = pad_to
        # A model or task gets these values if it has parameters with these names.
        self.info = {"vocabulary": 256, "context": context}
        # A document of `length` bytes gives length + 1 predictions: the last one is its end.
        length = context - 1
        pieces = [d[i : i + length] for d in documents for i in range(0, len(d), length)]
        if len(pieces) < 10:
            raise UserError(
                f"There are {len(pieces)} documents, too few to hold some out. Give at least 10."
            )
        # The same split in every run: its key is a constant, not the run's seed.
        order = Permutation(len(pieces), key=0).slice(0, len(pieces))
        tenth = len(pieces) // 10
        parts = zip(("val", "test", "train"), np.split(order, [tenth, 2 * tenth]), strict=True)
        self.splits = {name: Documents([pieces[i] for i in part]) for name, part in parts}

    def split(self, name: str) -> Dataset | None:
        return self.splits.get(name)

    def files(self, paths: Sequence[str]) -> Dataset:
        return Prompts(paths, self.info["context"])

    def collate(self, samples: list[Document]) -> Document:
        """Return inputs and targets, int64 [B, length], padded on the right."""
        longest = max(len(sample.inputs) for sample in samples)
        length = -(-longest // self.pad_to) * self.pad_to
        inputs = torch.full((len(samples), length), END)
        targets = torch.full((len(samples), length), UNKNOWN)
        for row, sample in enumerate(samples):
            inputs[row, : len(sample.inputs)] = sample.inputs
            targets[row, : len(sample.targets)] = sample.targets
        return Document(inputs, targets)


class TextFiles(Text):
    """All .txt files below `root`. Empty lines separate documents."""

    def __init__(self, root: str, context: int, pad_to: int) -> None:
        paths = sorted((ROOT / root).rglob("*.txt"))
        if not paths:
            raise UserError(f"data.root={root} has no .txt file below it. Name another folder.")
        texts = [path.read_bytes().replace(b"\r\n", b"\n") for path in paths]
        documents = [part.strip() for text in texts for part in text.split(b"\n\n")]
        super().__init__([part for part in documents if part], context, pad_to)
