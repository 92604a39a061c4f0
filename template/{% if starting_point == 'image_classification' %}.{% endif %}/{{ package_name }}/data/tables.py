"""Your own pictures, named in CSV files, or in lists with `path label` in each line."""

import csv
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..engine.api import UserError
from ..engine.datasets.finding import hold_out
from ..engine.datasets.image_folder import ImageFolder

_LABELS = ["label", "labels", "class", "category", "target"]
_PATHS = ["path", "file", "filename", "file_name", "filepath", "image", "image_path", "picture"]
_SPLITS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}

Row = tuple[str, str, list[str]]
"""Split (may be empty), path and labels of a picture."""


class PictureTable(ImageFolder):
    """Pictures whose paths, from `root` on, and labels stand in the tables `train` and, if you have
    them, `val` and `test`. Or a column `split` in one table tells them apart.

    `label_columns`: patterns of the columns of labels; several columns hold 0 or 1 each. `separator`
    stands between several labels in one column. Other options: see `ImageFolder`.
    """

    def __init__(
        self,
        root: str,
        train: str,
        val: str | None,
        test: str | None,
        label_columns: list[str] | None,
        separator: str | None,
        info: Mapping[str, Any] | None = None,
        forgiving: bool = False,
        **options: Any,
    ) -> None:
        tables = {"train": train, "val": val, "test": test}
        self.paths = {split: path for split, path in tables.items() if path is not None}
        self.columns, self.separator = label_columns, separator
        super().__init__(root, info=info, forgiving=forgiving, **options)

    def find(self) -> tuple[list[str], dict[str, tuple[list[str], Tensor]]]:
        return by_tables(self.folder, self.paths, self.shares, self.columns, self.separator)

    def fingerprint(self) -> str:
        labels = (split.labels.numpy().tobytes() for split in self.splits.values())
        return hashlib.sha256(b"".join([super().fingerprint().encode(), *labels])).hexdigest()[:16]


def by_tables(
    folder: Path,
    tables: Mapping[str, str],
    shares: Mapping[str, float],
    columns: Sequence[str] | None,
    separator: str | None,
) -> tuple[list[str], dict[str, tuple[list[str], Tensor]]]:
    """Return the class names, and for each split the paths and the labels. Raises `UserError`.

    shares: of each class that are held out, by split, unless a table has the split.
    """
    rows: dict[str, dict[str, list[str]]] = {"train": {}}
    classes: list[str] = []
    for split, place in tables.items():
        table = Path(place).expanduser().absolute()
        if not table.exists() and (folder / table.name).exists():  # the data have moved
            table = folder / table.name
        names, own = _read(table, folder, columns, separator)
        classes = classes or names
        for given, path, labels in own:
            if any(path in others for others in rows.values()):
                raise UserError(f"The tables name {path} twice. Leave it in one row of one split.")
            kind = given.strip().lower()
            rows.setdefault(_SPLITS.get(kind, kind) or split, {})[path] = labels
    if unknown := sorted(rows.keys() - {"train", "val", "test"}):
        raise UserError(f"The tables have the split '{unknown[0]}'. Name it train, val or test.")
    train, has_several = rows["train"], bool(classes or separator)
    if not classes:
        found = {label for labels in train.values() for label in labels}
        classes = sorted(found, key=int if all(map(str.isdecimal, found)) else None)
    numbers = {name: number for number, name in enumerate(classes)}
    for split, named in rows.items():
        if other := {label for labels in named.values() for label in labels} - numbers.keys():
            name = min(other)
            raise UserError(f"Class '{name}' is in {split}, but not in train. Correct the tables.")
    missing, by_class = {k: v for k, v in shares.items() if k not in rows}, dict[str, list[str]]()
    for path, labels in train.items():
        by_class.setdefault("" if has_several else labels[0], []).append(path)
    for name, paths in by_class.items():
        held = hold_out(len(paths), numbers.get(name, 0), missing)
        for index, split in held.items():
            rows.setdefault(split, {})[paths[index]] = train.pop(paths[index])
    if not train or not rows.get("val"):
        raise UserError(
            "The tables must have pictures for training and, if val has none, 2 of a class."
        )
    samples = {}
    for split, named in rows.items():
        targets = torch.zeros(len(named), len(classes) if has_several else 0)
        if has_several:
            for row, labels in zip(targets, named.values(), strict=True):
                row[[numbers[label] for label in labels]] = 1
        else:
            targets = torch.tensor([numbers[label] for (label,) in named.values()])
        samples[split] = list(named), targets
    return classes, samples


def _read(
    path: Path, folder: Path, columns: Sequence[str] | None, separator: str | None
) -> tuple[list[str], list[Row]]:
    """Return the columns of 0 and 1 of a table, and its rows. Raises `UserError`."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}. Give a text file in UTF-8.") from None
    header = ["path", "label"]
    if path.suffix.lower() in (".csv", ".tsv"):
        parts = {mark: len(next(csv.reader(lines[:1], delimiter=mark), ())) for mark in ",;\t"}
        delimiter = max(parts, key=lambda m: (parts[m] > 1 and m != separator, parts[m]))
        cells = [row for row in csv.reader(lines, delimiter=delimiter) if row]
        if cells and not _is_picture(cells[0], cells[1:], folder):
            header = cells.pop(0)
    else:
        marks = "".join(mark for mark in " \t,;" if mark not in (separator or ""))
        last = re.compile(f"[{marks}]+(?=[^{marks}]+$)")
        cells = [last.split(line.strip()) for line in lines if line.strip()]
    named = [i for i, name in enumerate(header) if name.strip()] or [0]  # pandas' index has no name
    place = next((i for i in named if header[i].strip().lower() in _PATHS), named[0])
    others = [i for i in named if i != place]
    wanted = [header[i] for i in others] if len(others) == 1 else columns or _LABELS
    places = [i for i in others if _fits(header[i], wanted)]
    if not places or not cells:
        raise UserError(
            f"{path} has {len(cells)} rows of {', '.join(header)}. Name the columns of the labels, "
            "such as data.label_columns=[label], or [cat,dog] for columns of 0 and 1."
        )
    several, rows = [header[i] for i in places] if len(places) > 1 else [], list[Row]()
    for row in cells:
        values = [row[i].strip() for i in places] if len(row) == len(header) else []
        labels = values if separator is None else "".join(values[:1]).split(separator)
        if several and {*values} <= {"0", "1", "0.0", "1.0"}:
            labels = [name for name, value in zip(several, values, strict=True) if float(value)]
        elif several or not values or not (values[0] or separator):
            raise UserError(
                f"{path} has the row '{','.join(row)}', which lacks labels. Correct it."
            )
        name = _found(folder, row[place])
        if name is None:
            raise UserError(
                f"{path} names {row[place]}, which is not in {folder}. Set data.root=PATH."
            )
        split = row[header.index("split")] if "split" in header else ""
        rows.append((split, name, [label.strip() for label in labels if label.strip()]))
    return several, rows


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return name != "split" and any(fnmatchcase(name.lower(), p.lower()) for p in patterns)


def _is_picture(first: Sequence[str], others: Sequence[Sequence[str]], folder: Path) -> bool:
    """Return False for a header. A picture may be missing: its label is in another row, too."""
    if first[0].lower().endswith(ImageFolder.endings) or _found(folder, first[0]) is not None:
        return True
    return first[1:2] in [row[1:2] for row in others]


def _found(folder: Path, name: str) -> str | None:
    """Return the name of a picture in `folder`, also if its ending was left out."""
    names = (name + ending for ending in ("", *ImageFolder.endings))
    return next((name for name in names if os.path.isfile(folder / name)), None)
