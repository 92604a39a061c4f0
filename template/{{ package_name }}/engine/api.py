"""The interface for your files: `Data`, `Task`, `Mean`, `Context` and more. It only grows."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from .errors import UserError
from .means import Mean, parts_of_whole
from .paths import PICTURES
from .predictions import Pictures, class_pictures, class_predictions
from .schedule import Schedule, bounded
from .sink import Logger

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure
    from torch.optim import Optimizer

__all__ = [
    "BatchDataset",
    "Context",
    "Data",
    "Logger",
    "Mean",
    "Pictures",
    "Schedule",
    "Share",
    "Task",
    "UserError",
    "bounded",
    "class_pictures",
    "class_predictions",
    "record",
    "recording",
]


class Share:
    """The share of samples for which `holds(*tensors)` is true, such as an accuracy.

    tensors: one row per sample, [B, …]. `holds` returns bool, [B], and treats each row alone.
    """

    __slots__ = ("holds", "tensors")

    def __init__(self, holds: Callable[..., Tensor], *tensors: Tensor) -> None:
        self.holds, self.tensors = holds, [tensor.detach() for tensor in tensors]

    def value(self) -> Tensor:
        """Return the share as a scalar, float64."""
        return self.holds(*self.tensors).double().mean()


@dataclass(slots=True)  # frozen, it would take three times as long to make
class Context:
    """The position of a step in the run. Each method of a task gets one."""

    step: int
    """Optimizer steps done before this step, from 0."""
    epoch: int
    """From 1."""
    training: bool
    device: torch.device
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """In validation, the task's `metrics`: call `ctx.metrics["f1"].update(…)` with each batch."""
    ends_epoch: bool = False
    """In `after_step` and `after_validation`: whether `step` ends an epoch."""
    folder: Path | None = None
    """There, in the main process of a run: its folder. Print or write only if it is not None."""


class Data(ABC):
    """A data set with its splits, built from `configs/data/`.

    It may have `state_dict` and `load_state_dict`, as a task may. Then no loader worker reads it.
    """

    info: Mapping[str, Any] = {}
    """Facts that models, losses and tasks get if they have a parameter of that name: `classes`
    (int), `class_names` (list of str), `shape` (channels, height, width)."""

    collate: Callable[[list[Any]], Any] | None = None
    """Joins samples into a batch. None takes torch's `default_collate`."""

    @abstractmethod
    def split(self, name: str) -> Dataset[Any] | None:
        """Return the map-style data set of "train", "val" or "test", or None."""

    def order(self, epoch: int, key: int) -> np.ndarray | None:
        """Return the samples of the training split that an epoch takes, in order: int64 indices.

        For weighted, balanced or paired sampling. None: each sample once, shuffled. Each epoch (from
        1) must have the same number of indices. A batch is `batch_size` of them in a row. Draw from
        `np.random.default_rng(key)`, so that the order is the same in each run.
        """
        return None

    endings: tuple[str, ...] = PICTURES
    """`predict FOLDER` takes the files with these name endings."""

    def files(self, paths: Sequence[str]) -> Dataset[Any]:
        """Return files as samples for `predict`, map-style, in this order, prepared as in validation.

        A sample looks like a sample of a split. Its label is -1 or NaN. If a file holds several
        samples, the data set has `names`, one for each sample: "points.csv:7".
        """
        raise UserError(
            f"{type(self).__name__} cannot read files. Give it a method `files` (see Data.files in engine/api.py)."
        )

    def made_up(self) -> Any:
        """Return a batch of made-up samples, for `export` where the data are absent, or None.

        Default: random pictures of `info["shape"]`, and zeros.
        """
        shape = self.info.get("shape")
        return shape and (torch.rand(2, *shape), torch.zeros(2, dtype=torch.int64))

    def fingerprint(self) -> str:
        """Return a short text that changes if the data change. Default: of `info` and the sizes."""
        splits = {name: self.split(name) for name in ("train", "val", "test")}
        sizes = {k: None if s is None else len(s) for k, s in splits.items()}  # type: ignore[arg-type]
        facts = json.dumps(
            [dict(self.info), sizes], sort_keys=True, default=lambda x: type(x).__name__
        )
        return hashlib.sha256(facts.encode()).hexdigest()[:16]


@runtime_checkable
class BatchDataset(Protocol):
    """A data set that builds whole batches at once, for data in memory. The main process reads it,
    or loader workers if it has `in_workers = True`.

    `sample_bytes` (int) is the approximate size of a sample in a batch. With it, several small batches
    may be read in one call and split: each sample must be one row of each tensor. For
    `data_on_device=true` it needs a method `to(device)` that returns the same data on a GPU.
    """

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray, keys: np.ndarray) -> Any:
        """Return the collated batch of samples `indices` (int64, [B]).

        `keys` (uint64, [B]) is the randomness of each sample. The same sample in the same epoch has
        the same key in each batch, run and resume.
        """
        ...


class Task(ABC):
    """What one step computes. Only `training_step` is mandatory.

    The engine logs each value that a step returns and minimises "loss". Parameters of `__init__` are
    filled by name: from the config's `task` section, the data's `info`, and `loss` (the module).
    A checkpoint holds its `state_dict`, for `load_state_dict`, if it has both.
    """

    loss: nn.Module

    @abstractmethod
    def training_step(
        self, model: nn.Module, batch: Any, ctx: Context
    ) -> Mapping[str, Tensor | Mean | Share]:
        """Return the values of one micro-batch: scalars (means over samples), `Mean` or `Share`."""

    def trains(self, ctx: Context) -> Sequence[str] | None:
        """Return the names of the parameter groups that this step changes. None: all.

        For networks that are trained in turn, such as a GAN's. Other groups keep their state.
        """
        return None

    def validation_step(
        self, model: nn.Module, batch: Any, ctx: Context
    ) -> Mapping[str, Tensor | Mean | Share]:
        """Like `training_step`, with `model` in eval mode and without gradients."""
        return self.training_step(model, batch, ctx)

    def after_step(self, model: nn.Module, optimizer: Optimizer, ctx: Context) -> None:  # noqa: B027
        """Called after each optimizer step, without gradients, in every process.

        `ctx.step` counts this step, too. It may change weights in place, which are averaged after
        it, and options of the optimizer's groups besides `lr`.
        """

    def after_validation(  # noqa: B027
        self, model: nn.Module, values: Mapping[str, float], ctx: Context
    ) -> None:
        """Called after each validation with its values by tag, such as "val/loss".

        `model` is in eval mode. It must not change: best.pt gets the weights that were validated.
        """

    def derived(self, means: Mapping[str, float]) -> Mapping[str, float]:
        """Return values that follow from means, such as a root or a ratio. They are logged too.

        It gets the means by key, over all processes, at each log point, epoch end and validation.
        """
        return {}

    def metrics(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Return torchmetrics objects by name, for values that are not means (F1, mAP, IoU …).

        `validation_step` updates them on the device. The engine resets them before a validation and
        logs `compute()` after it: a scalar as val/<name>, a dict as val/<name>/<key>.
        """
        return {}

    def predict_step(self, model: nn.Module, batch: Any, ctx: Context) -> list[dict[str, Any]]:
        """Return the prediction for each sample of a batch, as plain values. `model` is in eval mode.

        Keys, also those of a nested dict, become columns of `predict`. If rows have "label" and
        "target" (the true label), `evaluate` makes a table of them.
        """
        raise UserError(
            f"{type(self).__name__} makes no predictions. Give it a method `predict_step` (see "
            "Task.predict_step in engine/api.py)."
        )

    def images(self, model: nn.Module, batch: Any, ctx: Context) -> Mapping[str, Tensor | Pictures]:
        """Return pictures for the loggers, by name: [C, H, W], [H, W, C], [H, W] or a batch of them.

        Called with the first training batch (`ctx.training`), and with each validation batch after
        `validation_step`, with `model` in eval mode. There, a second call of `model` with the same
        tensors returns the first result and costs nothing.
        """
        return {}

    def show(self, model: nn.Module, batch: Any, ctx: Context) -> Mapping[str, str | Figure]:
        """Return texts or matplotlib figures for the loggers, by name, once per validation.

        Called at the end of a validation with its first batch and `model` in eval mode.
        `ctx.metrics` hold the whole validation. Random draws are the same in each validation.
        """
        return {}

    def example(self, batch: Any) -> tuple[Any, ...]:
        """Return the model's arguments, from a batch, for `export` and the graph."""
        return (batch[0] if isinstance(batch, list | tuple) else batch,)


_recorded: list[dict[str, list[Tensor | Mean]]] = []
"""`record` writes to the last one: the innermost step that is running."""


def record(name: str, value: Tensor, n: Tensor | float | None = None) -> None:
    """Log a scalar from anywhere inside a model's forward pass or a loss. Raises `UserError`.

    It is averaged like a returned value: over the samples of the batch or over `n` things, and over
    all records of the name in a step. A value that the step returns under the same name replaces it.
    Outside of a step's forward pass, and when activation checkpointing repeats one, it does nothing.
    It never waits for the device. A compiled model is compiled once per call in a step.
    """
    if not _recorded:
        return
    check_scalar(name, value)
    # Copy it: a parameter, a buffer or a running sum may change in place later.
    value = value.detach().clone()
    n = n.detach().clone() if isinstance(n, Tensor) else n
    _recorded[-1].setdefault(name, []).append(value if n is None else Mean(value, n))


def check_scalar(name: str, value: Any) -> None:
    """Raise `UserError` unless the value logged as `name` is a tensor with one element."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"'{name}' was logged as {shape}. Log a tensor with one value.")


def count_share(name: str, share: Share) -> Tensor:
    """Return the number of samples for which the share holds, int64. Raises `UserError`."""
    held, samples = share.holds(*share.tensors), len(share.tensors[0])
    if held.dtype != torch.bool or held.shape != (samples,):
        raise UserError(
            f"The Share '{name}' is {held.dtype} {list(held.shape)}. Return bool [{samples}]."
        )
    return held.count_nonzero()  # faster than sum()


class recording:
    """Collect the values that `record` gets in a block: `with recording() as values`.

    The block may set `parts_of_whole[-1]` (means.py) if its samples are not the whole.
    """

    # A class, because a generator-based context manager costs ten times as much per step.
    __slots__ = ("values",)

    def __enter__(self) -> dict[str, list[Tensor | Mean]]:
        self.values: dict[str, list[Tensor | Mean]] = {}
        _recorded.append(self.values)
        parts_of_whole.append(1.0)
        return self.values

    def __exit__(self, *error: object) -> None:
        _recorded.pop()
        parts_of_whole.pop()
