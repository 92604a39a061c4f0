"""What your files build on: `Data`, `Task`, `Mean`, `Context`. This interface only grows."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from .errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


__all__ = [
    "BatchDataset",
    "Context",
    "Data",
    "Logger",
    "Mean",
    "Pictures",
    "Share",
    "Task",
    "UserError",
    "class_pictures",
    "class_predictions",
    "record",
    "recording",
]

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""How the names of picture files end."""


class Mean(NamedTuple):
    """A value that is an average over `n` things: samples, tokens, valid pixels.

    Log points, epochs, accumulated and distributed batches weigh it by `n`. A plain tensor counts
    as a mean over the samples of its batch.
    """

    value: Tensor
    n: Tensor | float


class Share:
    """The share of samples for which `holds(*tensors)` is true, such as an accuracy.

    tensors: one row per sample, [B, …], not to be changed in place later; `holds` returns bool,
    [B], and looks at each row alone and at nothing else. It is called at log points for the samples
    of many steps at once: a step does not wait for it. Weighs as much as it has rows.
    """

    __slots__ = ("holds", "tensors")

    def __init__(self, holds: Callable[..., Tensor], *tensors: Tensor) -> None:
        self.holds, self.tensors = holds, [tensor.detach() for tensor in tensors]

    def value(self) -> Tensor:
        """float64, a scalar."""
        return self.holds(*self.tensors).double().mean()


@dataclass(frozen=True, slots=True)
class Context:
    """Where a step stands: handed to every method of a task."""

    step: int
    """Optimizer steps done before this one, from 0."""
    epoch: int
    """From 1, as people count."""
    training: bool
    device: torch.device
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """In validation, the task's `metrics`: call `ctx.metrics["f1"].update(…)` with each batch."""


class Data(ABC):
    """A data set with its splits; built from `configs/data/`."""

    info: Mapping[str, Any] = {}
    """Facts that models, losses and tasks may ask for by parameter name, such as `classes` (int),
    `class_names` (list of str), `shape` (channels, height, width)."""

    collate: Callable[[list[Any]], Any] | None = None
    """Joins samples into a batch; None takes torch's `default_collate`."""

    @abstractmethod
    def split(self, name: str) -> Dataset[Any] | None:
        """The map-style data set of "train", "val" or "test"; None where there is no such split."""

    def order(self, epoch: int, key: int) -> np.ndarray | None:
        """Which samples of "train" an epoch takes, in their order: int64 indices, as many in every
        epoch; a batch is `batch_size` of them in a row. None: every sample once, shuffled.

        For weighted, balanced or paired sampling. `epoch` is from 1; `key` its randomness, a 64-bit
        int: draw from `np.random.default_rng(key)`, so that the order is the same in every run.
        """
        return None

    endings: tuple[str, ...] = PICTURES
    """Which files below a folder `predict FOLDER` takes, by the ends of their names."""

    def files(self, paths: Sequence[str]) -> Dataset[Any]:
        """Files as samples for `predict`, map-style and in this order, prepared as for validation.

        A sample looks like one of a split; -1, or not a number, stands where its label would be.
        Where files hold several samples, the data set has `names`, one for each: "points.csv:7".
        """
        raise UserError(
            f"{type(self).__name__} cannot read files; give it a method `files` (see Data.files in "
            "engine/api.py)."
        )

    def fingerprint(self) -> str:
        """A short text that changes when the data change. By default: `info` and the sizes."""
        sizes = {name: _size(self.split(name)) for name in ("train", "val", "test")}
        facts = json.dumps(
            [dict(self.info), sizes], sort_keys=True, default=lambda x: type(x).__name__
        )
        return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _size(dataset: Dataset[Any] | None) -> int | None:
    return None if dataset is None else len(dataset)  # type: ignore[arg-type]


@runtime_checkable
class BatchDataset(Protocol):
    """A data set that builds whole batches at once, for what fits in memory.

    It is read in the main process, or by loader workers where it has an attribute `in_workers` that
    is true. Where it has `sample_bytes` (int: about how large a sample of a batch is), each sample
    is one row of every tensor of a batch and does not depend on the others, so several small batches
    may be read with one call and cut. A method `to(device)` that returns the same data set on a GPU
    serves `data_on_device=true`.
    """

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray, keys: np.ndarray) -> Any:
        """The collated batch of samples `indices` (int64, shape [B]).

        `keys` (uint64, shape [B]) is the randomness of each sample: the same sample in the same
        epoch gets the same key in every batch, run and resume.
        """
        ...


class Task(ABC):
    """What one step computes. Only `training_step` is mandatory.

    Everything a step returns is logged under its key; "loss" is minimised. Parameters of
    `__init__` are filled by name from the config's `task` section, the data's `info`, and `loss`
    (the module built from `configs/loss/`).
    """

    loss: nn.Module

    @abstractmethod
    def training_step(
        self, model: nn.Module, batch: Any, ctx: Context
    ) -> Mapping[str, Tensor | Mean | Share]:
        """Values of one micro-batch: scalars, a `Mean` where the average is not over samples, a
        `Share` of its samples."""

    def trains(self, ctx: Context) -> Sequence[str] | None:
        """Which of the optimizer's groups (`optimizer.groups`) this step changes; None: all.

        For networks that are trained in turn, such as a GAN's two: the other groups keep weights
        and optimizer state as if the step had not been.
        """
        return None

    def validation_step(
        self, model: nn.Module, batch: Any, ctx: Context
    ) -> Mapping[str, Tensor | Mean | Share]:
        """As `training_step`, with `model` in eval mode and without gradients."""
        return self.training_step(model, batch, ctx)

    def derived(self, means: Mapping[str, float]) -> Mapping[str, float]:
        """What follows from means: a root of a mean square, a ratio of two means.

        Called with the means by key at each log point, and of each epoch and validation, over all
        processes; what it returns is logged beside them.
        """
        return {}

    def metrics(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """torchmetrics objects by name, for what is no mean over samples (F1, mAP, IoU …).

        `validation_step` updates them on the device; the engine resets them before a validation
        and logs `compute()`, a scalar or a dict of them, as val/<name> or val/<name>/<key> after it.
        """
        return {}

    def predict_step(self, model: nn.Module, batch: Any, ctx: Context) -> list[dict[str, Any]]:
        """What is said of each sample of a batch, as plain values; `model` is in eval mode.

        Keys become columns of `predict`, those of a nested dict too. Where there is a "label" and
        a "target" (what it should be), `evaluate` makes a table of them.
        """
        raise UserError(
            f"{type(self).__name__} makes no predictions; give it a method `predict_step` (see "
            "Task.predict_step in engine/api.py)."
        )

    def images(self, model: nn.Module, batch: Any, ctx: Context) -> Mapping[str, Tensor | Pictures]:
        """What loggers show of a batch, by name.

        Called with the first training batch (`ctx.training`), and with each batch of a validation
        after `validation_step`, with `model` in eval mode. There, calling `model` again with the
        same tensors returns what it returned before and costs nothing. A tensor is one picture
        ([C, H, W], [H, W, C] or [H, W]) or a batch of them ([B, C, H, W] or [B, H, W, C]).
        """
        return {}

    def show(self, model: nn.Module, batch: Any, ctx: Context) -> Mapping[str, str | Figure]:
        """What loggers show once per validation, by name: a text, or a figure of matplotlib.

        Called at a validation's end with its first batch and `model` in eval mode; `ctx.metrics`
        hold the whole validation. What is drawn at random is the same in every validation.
        """
        return {}

    def example(self, batch: Any) -> tuple[Any, ...]:
        """What `export` and the graph call the model with, from a batch: tensors whose first size
        is the batch's."""
        return (batch[0] if isinstance(batch, list | tuple) else batch,)


def class_predictions(
    logits: Tensor, labels: Tensor, names: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """The likeliest class of each sample, its probability and that of every class.

    logits: float, shape [B, classes]; labels: int64, shape [B], -1 where it is not known. `names`
    of the classes; their numbers where there are none.
    """
    names = [str(n) for n in (range(logits.shape[1]) if names is None else names)]
    rows = []
    for values, label in zip(logits.float().softmax(dim=1).tolist(), labels.tolist(), strict=True):
        likeliest = max(range(len(values)), key=values.__getitem__)
        row = {"label": names[likeliest], "probability": values[likeliest]}
        if label >= 0:
            row["target"] = names[label]
        rows.append({**row, "probabilities": dict(zip(names, values, strict=True))})
    return rows


class Pictures(NamedTuple):
    """Pictures for `Task.images`, shown as a grid with what is known of each written below.

    Of a whole validation, those with the highest `score` above 0 are shown; without scores the
    first ones.
    """

    images: Tensor
    """[B, C, H, W], [B, H, W, C] or [B, H, W]. Integers are from 0 to 255; of floats outside of
    0…1 each channel is scaled by its smallest and largest value in the batch."""
    target: Tensor | None = None
    """int64 [B], the class; for mixed labels [B, classes], of which the largest counts."""
    label: Tensor | None = None
    """int64 [B], the predicted class."""
    probability: Tensor | None = None
    """float [B], of the predicted class."""
    score: Tensor | None = None
    """float [B]."""


def class_pictures(images: Tensor, logits: Tensor, labels: Tensor) -> dict[str, Pictures]:
    """For `Task.images`: the first predictions, and of the wrong ones those with the highest loss.

    logits: float [B, classes]; labels: int64 [B].
    """
    likelihoods = logits.float().log_softmax(dim=1)
    likeliest, predicted = likelihoods.max(dim=1)
    loss = -likelihoods.gather(1, labels[:, None]).squeeze(1)
    shown = Pictures(images, labels, predicted, likeliest.exp())
    return {"predictions": shown, "mistakes": shown._replace(score=loss * (predicted != labels))}


_recorded: list[dict[str, list[Tensor | Mean]]] = []
"""Where `record` writes: the innermost step that is under way."""


def record(name: str, value: Tensor, n: Tensor | float | None = None) -> None:
    """Log a scalar from anywhere inside a model's forward or a loss, averaged like what a step
    returns: over the samples of the batch, or over `n` things. Raises `UserError`.

    What is recorded several times in a step, as in a module that is used twice, is the mean of all,
    weighted by `n`; where the step returns a value of this name, that one counts alone. Outside of
    a step's forward it does nothing, so a forward repeated in a checkpointed backward adds nothing.

    It never waits for the device. In a compiled model the value is one more output of the graph,
    which stays whole; a model called k times in one step is compiled once for each of the calls.
    """
    if not _recorded:
        return
    check_scalar(name, value)
    # Copied, for what changes in place afterwards: a parameter, a buffer, a sum of losses.
    value = value.detach().clone()
    n = n.detach().clone() if isinstance(n, Tensor) else n
    _recorded[-1].setdefault(name, []).append(value if n is None else Mean(value, n))


def check_scalar(name: str, value: Any) -> None:
    """Raises `UserError` where what was logged as `name` is no tensor with one value."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"'{name}' was logged as {shape}; it must be a tensor with one value.")


class recording:
    """Collects what `record` gets within the block: `with recording() as values`."""

    # A class, because a step should cost little and a generator's block takes ten times as long.
    __slots__ = ("values",)

    def __enter__(self) -> dict[str, list[Tensor | Mean]]:
        self.values: dict[str, list[Tensor | Mean]] = {}
        _recorded.append(self.values)
        return self.values

    def __exit__(self, *error: object) -> None:
        _recorded.pop()


class Logger(ABC):
    """A place where values go besides `metrics.jsonl`; one file each in `configs/logger/`.

    Only `scalars` is mandatory. Parameters of `__init__` are filled by name from the logger's
    config, and with `folder`, the run's (Path), and `next_step`, the first step that is not done
    yet (int, 1 in a new run): a killed process may have logged some steps from there on.
    """

    @classmethod  # noqa: B027
    def check(cls, section: Mapping[str, Any]) -> None:
        """Called before there is a run folder, with the logger's config. Raises `UserError` where
        nothing could be logged."""

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Called at log points and after a validation, never in between."""

    def begin(self, step: int, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:  # noqa: B027
        """Called once, after the first step of this process: the whole config, as nested plain
        values, and what `manifest.json` says."""

    def graph(self, model: nn.Module, example: tuple[Any, ...]) -> None:  # noqa: B027
        """What to call the model with to follow its graph; `model` is a copy, in eval mode."""

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:  # noqa: B027
        """Pictures by tag, uint8, shape [H, W, 3]."""

    def texts(self, step: int, texts: Mapping[str, str]) -> None:  # noqa: B027
        """Texts by tag, of any number of lines."""

    def histograms(self, step: int, values: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Weights and gradients by tag, of any shape, on their device."""

    def finish(self, step: int, values: Mapping[str, float]) -> None:  # noqa: B027
        """Called where the run has come to its end, with the best of `monitor` as best/<key>."""

    def flush(self) -> None:  # noqa: B027 - not every logger holds something back
        """Called before each checkpoint: what was logged so far must survive a kill -9."""

    def close(self) -> None:  # noqa: B027 - not every logger holds something open
        """Called once, when the run ends in whatever way."""
