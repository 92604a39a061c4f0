"""The interface of loggers: the places that take logged values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn


class Logger(ABC):
    """A place for logged values besides `metrics.jsonl`, such as TensorBoard. See `configs/logger/`.

    Only `scalars` is mandatory. Parameters of `__init__` are filled by name from the logger's config.
    Two more are offered: `folder` (Path, the run folder) and `next_step` (int, the first step to be
    done, 1 in a new run). A killed process may have logged some steps from `next_step` on.
    """

    @classmethod  # noqa: B027
    def check(cls, section: Mapping[str, Any]) -> None:
        """Raise `UserError` if this logger cannot work. Called before the run folder exists."""

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log values by tag. Called at log points and after validations only."""

    def begin(self, step: int, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:  # noqa: B027
        """Called once, after the first step of this process, with the whole config and manifest."""

    def graph(self, model: nn.Module, example: tuple[Any, ...]) -> None:  # noqa: B027
        """Log the model's graph. `model` is a copy in eval mode, `example` its arguments."""

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:  # noqa: B027
        """Log pictures by tag, uint8 [H, W, 3]."""

    def texts(self, step: int, texts: Mapping[str, str]) -> None:  # noqa: B027
        """Log texts by tag, of any number of lines."""

    def histograms(self, step: int, values: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Log weights and gradients by tag, of any shape, on their device."""

    def new_best(self, step: int, values: Mapping[str, float]) -> None:  # noqa: B027
        """Called after a validation whose value of `monitor` is the best so far: best/<key>."""

    def finish(self, step: int, values: Mapping[str, float]) -> None:  # noqa: B027
        """Called at the end of the run, with the best value of `monitor` as best/<key>."""

    def flush(self) -> None:  # noqa: B027
        """Write all values to disk. Called before each checkpoint: they must survive kill -9."""

    def close(self) -> None:  # noqa: B027
        """Called once, when the run ends for any reason."""
