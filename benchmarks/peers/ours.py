"""The rendered project, started as by `python train.py`, with all defaults."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import torch
from digits.engine import signals
from digits.engine.api import Data
from digits.engine.launch import launch
from digits.engine.loop import Loop
from digits.engine.train import train
from digits.task import Classification
from torch import Tensor
from torch.utils.data import Dataset

from .turns import EPOCHS, TURNS


class Rows(Dataset):
    """The samples of `TURNS`, in whole batches from memory."""

    sample_bytes = 4 * TURNS.inputs + 8

    def __init__(self, count: int) -> None:
        self.images, self.labels = (tensor[:count] for tensor in TURNS.rows())

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]

    def to(self, device: torch.device) -> Rows:
        self.images, self.labels = self.images.to(device), self.labels.to(device)
        return self

    def batch(self, indices: np.ndarray, keys: np.ndarray) -> tuple[Tensor, Tensor]:
        chosen = torch.from_numpy(indices).to(self.labels.device, non_blocking=True)
        return self.images[chosen], self.labels[chosen]


class RowsData(Data):
    def __init__(self) -> None:
        self.info = {"shape": (TURNS.inputs,), "classes": 10}
        self.splits = {"train": Rows(TURNS.epoch * TURNS.batch * TURNS.processes), "val": Rows(10 * TURNS.batch)}

    def split(self, name: str) -> Dataset | None:
        return self.splits.get(name)


class Timed(Classification):
    """The default task. It tells `TURNS` about every step."""

    def training_step(self, model, batch, ctx):  # type: ignore[no-untyped-def]
        TURNS.step(ctx.step)
        return super().training_step(model, batch, ctx)


class Settled(Loop):
    """Leave out the end of an epoch and the part of a save that a thread does."""

    def save(self, best: bool = False) -> None:
        super().save(best)
        self.saver.wait()


def begin(loop_type: type[Loop] = Settled, data: str | None = None) -> None:
    """Do `python train.py` with the command line's overrides. Use `Rows` and an MLP unless `data` names others."""
    chosen = [data] if data else ["data._target_=benchmarks.peers.ours.RowsData", "model=mlp", "lr=0.001"]
    if not data:
        chosen += [f"model.hidden=[{','.join(map(str, TURNS.hidden))}]", f"batch_size={TURNS.batch * TURNS.processes}"]
        # On a GPU as all others: data on the device, and float32.
        chosen += ["precision=fp32", f"data_on_device={str(TURNS.device.type == 'cuda').lower()}"]
    sys.argv = [
        *("train.py", "~data.shift", "task._target_=benchmarks.peers.ours.Timed", "allowed_packages=[benchmarks]"),
        *(*chosen, f"epochs={EPOCHS}", f"device={TURNS.device.type}", *sys.argv[1:]),
    ]
    signals.install()
    TURNS.wait()
    sys.exit(launch(partial(train, loop_type=loop_type)))


if __name__ == "__main__":
    begin()
