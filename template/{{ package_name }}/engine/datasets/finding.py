"""Find the pictures of each split in a folder for each class."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import features
from torch import Tensor

from ..errors import UserError
from ..folds import split_by_fold
from ..paths import PICTURES, files_below
from ..rng import Permutation
from ..text import logger
from . import SPLIT_KEY

_NAMES = {
    "train": ("training", "train"),
    "val": ("validation", "valid", "val"),
    "test": ("testing", "test"),
}
"""The names that the folder of a split may have."""

Found = tuple[list[str], dict[str, tuple[list[str], Tensor]]]
"""The class names, and for each split the paths of its pictures and their labels. Paths start at
`root`. Labels are int64 [N], or float32 [N, classes] if pictures have several."""


def hold_out(count: int, key: int, shares: Mapping[str, float]) -> dict[int, str]:
    """Return the split of each held-out sample of a class. Each share gets at least one sample, as
    long as one stays in training."""
    held, order = dict[int, str](), Permutation(count, key).slice(0, count).tolist()
    for split, share in shares.items():
        taken = min(max(1, round(share * count)), len(order) - 1)
        held |= dict.fromkeys(order[:taken], split)
        order = order[taken:]
    return held


def by_folders(
    folder: Path, shares: Mapping[str, float], skip: Sequence[str] | None, known: list[str] | None
) -> Found:
    """Find pictures in a folder for each class. Raises `UserError`.

    shares: of each class that are held out, by split, unless the split has a folder. skip: patterns
    of names that are no data. None: as the releases before 0.3.0. known: the classes of a run, which
    may be evaluated without a folder of training pictures.
    """
    if not folder.is_dir():
        raise UserError(f"The folder {folder} does not exist. Set data.root=PATH.")
    others = Counter[str]()
    has_avif = "avif" in features.modules and features.check("avif")
    endings = PICTURES[:10] if skip is None else PICTURES[: len(PICTURES) - (not has_avif)]
    below = partial(files_below, endings=endings, skip=skip, others=others)
    folders = partial(_folders, skip=skip or ())
    places = {name.lower(): folder / name for name in folders(folder)}
    found = {split: places[n] for split, names in _NAMES.items() for n in names if n in places}
    is_class = "train" not in places and len(found) == 1  # `training` alone may be a class
    are_classes = bool(places.keys() & {name.lower() for name in known or ()})
    without_train = known is not None and found and "train" not in found and not are_classes
    if not without_train and ("train" not in found or is_class):
        if "val" in found and folders(found["val"]):
            raise UserError(f"{folder} has a folder '{found['val'].name}', but no 'train'.")
        if found and skip is not None:
            names = ", ".join(place.name for place in found.values())
            logger.warning(
                f"{folder} has no folder 'train', so {names} is read as a class. If it is none, make a "
                "folder 'train', or add the name to data.skip."
            )
        found = {"train": folder}
    if "test" in found and not folders(found["test"]) and below(found["test"]):
        logger.warning(f"{found.pop('test')} has no folders of classes. Its pictures are not read.")
    classes = known if known and without_train else folders(found["train"])
    start = len(os.path.join(folder, ""))
    paths: dict[str, list[str]] = {split: [] for split in (*found, *shares)}
    labels: dict[str, list[int]] = {split: [] for split in paths}
    shares = {split: share for split, share in shares.items() if split not in found}
    for split, place in found.items():
        present, least = folders(place), 2 if split == "train" else 1
        if len(present) < least:
            text = f"{place} has {len(present)} folders. It needs one for each class"
            raise UserError(f"{text}, at least {least}.")
        for name in present:
            if name not in classes:
                where = found.get("train", "the run")
                raise UserError(f"Class '{name}' is in {place}, but not in {where}.")
            own, number = below(place / name), classes.index(name)
            if not own:
                raise UserError(f"{place / name} has no pictures: {', '.join(endings)}.")
            held = hold_out(len(own), SPLIT_KEY + number, shares) if split == "train" else {}
            for index, path in enumerate(own):
                paths[held.get(index, split)].append(path[start:])
                labels[held.get(index, split)].append(number)
    if not paths["val"] and not without_train:
        raise UserError("Every class has only one picture: none can be held out for validation.")
    if others and skip is not None:
        counted = ", ".join(f"{count:,} {ending}" for ending, count in sorted(others.items()))
        logger.warning(
            f"{folder} has files that are not read: {counted}. If they are pictures, convert them to "
            "PNG or JPEG. Else add their names to data.skip."
        )
    return classes, {k: (own, torch.tensor(labels[k])) for k, own in paths.items() if own}


def _folders(folder: Path, skip: Sequence[str]) -> list[str]:
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(n for n in names if n[0] != "." and not any(fnmatchcase(n, s) for s in skip))


def in_folds(found: Found, folds: int, fold: int) -> Found:
    """Validate with fold `fold` of all pictures that are not for the test. Raises `UserError`."""
    names, splits = found
    paths = [path for split in ("train", "val") for path in splits[split][0]]
    order = sorted(range(len(paths)), key=paths.__getitem__)  # `val_fraction` does not matter
    labels = torch.cat([splits["train"][1], splits["val"][1]])[order]
    kinds = np.unique(labels, axis=0, return_inverse=True)[1]  # of several labels: the same ones
    parts = zip(("train", "val"), split_by_fold(kinds, folds, fold), strict=True)
    cut = {name: ([paths[order[i]] for i in part], labels[part]) for name, part in parts}
    return names, {**splits, **cut}


def without(found: Found, folder: Path, listed: Path) -> Found:
    """Leave out the pictures that a text file lists, one path in each line. Raises `UserError`."""
    try:
        lines = listed.expanduser().read_text("utf-8", "surrogateescape").splitlines()
    except OSError as error:
        raise UserError(f"data.leave_out={listed} cannot be read: {error.strerror}.") from None
    start, bad, kept = os.path.join(folder, ""), {line.strip() for line in lines} - {""}, {}
    bad = {line.removeprefix(start) for line in bad}
    known = {path for paths, _ in found[1].values() for path in paths}
    if unknown := sorted(bad - known):
        raise UserError(
            f"data.leave_out={listed} names {unknown[0]}, which is not in the data. Delete it."
        )
    for split, (paths, labels) in found[1].items():
        stay = [index for index, path in enumerate(paths) if path not in bad]
        if not stay:
            raise UserError(f"data.leave_out={listed} leaves no picture of {split}. Shorten it.")
        kept[split] = [paths[index] for index in stay], labels[stay]
    return found[0], kept
