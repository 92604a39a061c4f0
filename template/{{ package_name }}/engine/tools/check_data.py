"""`check-data KEY=VALUE…`: read each sample of each split, and list the broken ones."""

import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from .. import rng
from ..api import BatchDataset, Data
from ..batches.loader import cores
from ..build.target import build
from ..config.schema import Config
from ..errors import Failed, one_line
from ..log.console import is_terminal
from ..paths import shown, write_whole
from ..rng import Domain
from ..text import printable, tell
from .folders import writing_to


def check_data(config: Config, out: Path | None) -> None:
    """Print the samples that cannot be read, and write their paths to `out`. Raises `Exit`."""
    from_files = {"in_memory": False, "cache": None}
    section = {**config.data, **{k: v for k, v in from_files.items() if k in config.data}}
    rng.seed_all(rng.make_key(config.seed, Domain.INIT, 0))
    data = build(section, "data", Data, config.allowed_packages, {"forgiving": True})
    workers = cores() if config.workers is None else config.workers
    paths, samples = list[str](), 0
    for split in ("train", "val", "test"):
        dataset = data.split(split)
        if dataset is None:
            continue
        size = len(dataset)
        samples += size
        names = getattr(dataset, "samples", range(size))
        options: Any = {"sampler": range(size), "num_workers": workers, "collate_fn": list}
        tried = DataLoader(_Tried(dataset), 32, **options)
        reasons, is_shown = chain.from_iterable(tried), is_terminal(sys.stderr)
        bar = tqdm(reasons, desc=split, total=size, disable=not is_shown)
        for index, reason in enumerate(bar):
            if reason is not None:
                name = names[index]
                paths.append(name if isinstance(name, str) else f"{split} {index}")
                tqdm.write(printable(f"{split} {paths[-1]}: {reason}"))
    if out is not None:
        with writing_to(out.parent):
            write_whole(out, "".join(f"{path}\n" for path in paths))
    if paths:
        advice = "--out FILE lists them." if out is None else f"{shown(out)} lists them."
        if out is not None and "leave_out" in config.data:
            advice = f"data.leave_out={shown(out)} leaves them out."
        raise Failed(f"{len(paths):,} of {samples:,} samples cannot be read. {advice}")
    tell(f"All {samples:,} samples can be read.")


class _Tried(Dataset[str | None]):
    """Why each sample cannot be read; None for one that can."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> str | None:
        try:
            if isinstance(self.dataset, BatchDataset):
                self.dataset.batch(np.array([index]), np.zeros(1, np.uint64))
            else:
                self.dataset[index]
        except Exception as error:
            return one_line(error.__cause__ or error)
        return None
