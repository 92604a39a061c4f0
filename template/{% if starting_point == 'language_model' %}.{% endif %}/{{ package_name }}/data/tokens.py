"""Files of token numbers, as nanoGPT writes them, and a tokenizer that turns text into them."""

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from ..engine.api import Data, UserError
from .text import Document, made_up, padded, read_text


class TokenFiles(Data):
    """The tokens in `root/train.bin`, `root/val.bin` and, if you have it, `root/test.bin`: uint16.

    A sample is `context` tokens and those that follow them. `vocabulary`: how many tokens there are;
    null: as many as the tokenizer has, or as the files use. `tokenizer`: a file
    tokenizer.json of Hugging Face, to read and write text. A run keeps it, in `info`. `folds` cut train.bin and val.bin, one after
    the other, into so many parts of neighbours, and part `fold` is for validation.
    """

    endings = (".txt",)

    def __init__(
        self,
        root: str,
        context: int,
        vocabulary: int | None,
        tokenizer: str | None,
        folds: int | None = None,
        fold: int = 0,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        if context < 2:
            raise UserError(f"data.context={context} must be at least 2.")
        self.place, self.folds, self.fold = Path(root).expanduser(), folds, fold
        if info is None:
            # A model or task gets these values if it has parameters with these names.
            info = {"vocabulary": vocabulary, "context": context, "is_bytes": False}
            info["tokenizer"] = None if tokenizer is None else self.read_tokenizer(tokenizer)
        self.info = dict(info)
        if self.info["vocabulary"] is None:
            self.info["vocabulary"] = self.measured()

    @property
    def files_of(self) -> dict[str, Path]:
        """The file of each split. Raises `UserError`."""
        has_test, context = (self.place / "test.bin").is_file(), self.info["context"]
        names = ("train", "val", "test") if has_test else ("train", "val")
        found = {name: self.place / f"{name}.bin" for name in names}
        for path in found.values():
            if not path.is_file() or path.stat().st_size < 2 * (context + 1):
                raise UserError(f"{path} must have more than {context} tokens. Set data.root=PATH.")
            words = np.fromfile(path, "<u2", 8192)
            low, high = words[: len(words) // 2 * 2].reshape(-1, 2).T
            if high.max() < 4 <= low.max():  # the upper halves of numbers of 32 bits
                raise UserError(f"{path} holds numbers of 32 bits. Write them as uint16.")
        return found

    def measured(self) -> int:
        """Return the number of tokens of the tokenizer, or as many as the files use."""
        if self.info["tokenizer"] is not None:
            return load_tokenizer(self.info["tokenizer"]).get_vocab_size()
        tokens = (np.memmap(path, "<u2", "r") for path in self.files_of.values())
        return 1 + max(int(own.max()) for own in tokens)

    def read_tokenizer(self, path: str) -> str:
        """Return the text of a file tokenizer.json, which may have moved into `root` with the data. A run
        keeps it in `info`. Raises `UserError`."""
        places = Path(path).expanduser(), self.place / Path(path).name
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise UserError(f"data.tokenizer={path} does not exist. Name a file tokenizer.json.")
        text = found.read_text("utf-8", "replace")
        load_tokenizer(text, path)
        return text

    def made_up(self) -> Document:
        return made_up(self.info["context"])

    def split(self, name: str) -> Dataset | None:
        options = self.info["context"], self.info["vocabulary"]
        spans = {own: Spans(path, *options) for own, path in self.files_of.items()}
        if self.folds is None or name == "test":
            return spans.get(name)
        both: Dataset = ConcatDataset([spans["train"], spans["val"]])
        count = len(spans["train"]) + len(spans["val"])
        begin, end = (count * number // self.folds for number in (self.fold, self.fold + 1))
        held = range(begin, end)
        return Subset(both, held if name == "val" else [*range(begin), *range(end, count)])

    def files(self, paths: Sequence[str]) -> Dataset:
        if self.info["tokenizer"] is None:
            raise UserError("Text needs a tokenizer. Set data.tokenizer=PATH, and train again.")
        return TokenPrompts(paths, self.info["tokenizer"], self.info["context"])

    def collate(self, samples: list[Document]) -> Document:
        return padded(samples)

    def fingerprint(self) -> str:
        """Hash the sizes of the files, the first MiB of each, and the tokenizer."""
        digest = hashlib.sha256((self.info["tokenizer"] or "").encode())
        for path in self.files_of.values():
            with open(path, "rb") as file:
                digest.update(f"{path.name} {os.path.getsize(path)}".encode() + file.read(1 << 20))
        return digest.hexdigest()[:16]


class Spans(Dataset):
    """Stretches of a file of tokens, one after the other."""

    def __init__(self, path: Path, context: int, vocabulary: int) -> None:
        self.path, self.context, self.vocabulary = path, context, vocabulary

    def __len__(self) -> int:
        return (self.path.stat().st_size // 2 - 1) // self.context

    def __getitem__(self, index: int) -> Document:
        start, count = 2 * index * self.context, self.context + 1
        numbers = np.fromfile(self.path, "<u2", count, offset=start).astype(np.int64)
        if numbers.max() >= self.vocabulary:
            raise UserError(
                f"{self.path} has the token {numbers.max()}, but there are {self.vocabulary}. Raise "
                "data.vocabulary."
            )
        tokens = torch.from_numpy(numbers)
        return Document(tokens[:-1], tokens[1:])


class TokenPrompts(Dataset):
    """Files whose text the model continues. Each token is its own target: padding has none."""

    def __init__(self, paths: Sequence[str], tokenizer: str, context: int) -> None:
        self.paths, self.context = paths, context
        reader = load_tokenizer(tokenizer)
        self.tokens = [reader.encode(self.read(path)).ids for path in paths]

    def read(self, path: str) -> str:
        return read_text(path).rstrip(b"\n").decode(errors="replace")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Document:
        tokens = torch.tensor(self.tokens[index], dtype=torch.int64)
        if not 0 < len(tokens) < self.context:
            raise UserError(
                f"{self.paths[index]} has {len(tokens):,} tokens. The model takes 1 to "
                f"{self.context - 1}, and continues them."
            )
        return Document(tokens, tokens)


@functools.cache
def load_tokenizer(text: str, path: str = "of the run") -> Any:
    """Return the tokenizer of a tokenizer.json's text. Raises `UserError`."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UserError("data.tokenizer needs tokenizers. Install it: uv add tokenizers") from None
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises no other kind
        raise UserError(
            f"The tokenizer {path} cannot be read: {error}. Name a file tokenizer.json of Hugging Face."
        ) from None
