"""Print, as JSON, a text for each sample of each split: without folds, then for each of three folds."""

import json
import random
import sys

import numpy as np
import torch
from digits.engine.api import Data
from digits.engine.build.target import build
from digits.engine.launch import compose


def texts(dataset) -> list[str]:
    found = []
    for index in range(len(dataset)):
        torch.manual_seed(0)
        random.seed(0)
        sample = dataset[index]
        parts = [np.asarray(part) for part in sample]
        found.append(" ".join(f"{part.dtype}{part.shape}{part.tobytes().hex()[:4000]}" for part in parts))
    return found


def splits(*overrides: str) -> dict[str, list[str]]:
    data = build(compose(*overrides).data, "data", Data, ())
    found = {name: data.split(name) for name in ("train", "val", "test")}
    return {name: texts(split) for name, split in found.items() if split is not None}


overrides = sys.argv[1:]
folds = [splits(*overrides, "data.folds=3", f"data.fold={fold}") for fold in range(3)]
print("SAMPLES", json.dumps([splits(*overrides), *folds]))
