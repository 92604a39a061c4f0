"""TensorBoard's event files."""

import contextlib
import io
import re
import shlex
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from ..api import Logger
from ..loggers import hyperparameters
from ..paths import to_json


class TensorBoard(Logger):
    """Event files in the run folder. A resumed run continues its curves without overlap.

    `flush_secs`: after so many seconds, values are on the disk. They are also on the disk before
    each checkpoint.
    """

    def __init__(self, folder: Path, next_step: int, flush_secs: int = 10) -> None:
        self.folder, self.next_step, self.flush_secs = folder, next_step, flush_secs
        self.tags: set[str] = set()

    @cached_property
    def writer(self) -> Any:
        """A `SummaryWriter`. It is opened late, because its imports would delay the first step."""
        from torch.utils.tensorboard import SummaryWriter

        # A killed process may have logged steps that this process logs again: hide them.
        return SummaryWriter(  # type: ignore[no-untyped-call]
            str(self.folder / "tensorboard"), purge_step=self.next_step, flush_secs=self.flush_secs
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        # One event for all values: `add_scalar` costs ten times as much per value.
        items = [Summary.Value(tag=tag, simple_value=v) for tag, v in values.items()]
        self.writer.file_writer.add_summary(Summary(value=items), step)
        if not values.keys() <= self.tags:
            self.tags.update(values)
            self.writer.add_custom_scalars(_layout(self.tags))

    def begin(self, step: int, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        command = shlex.join(["python", *manifest["command"]])
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        self.writer.add_text("command", _block(command), step)
        self.writer.add_text("config", _block(text, "yaml"), step)
        self.writer.add_text("manifest", _block(to_json(manifest, indent=2), "json"), step)
        self._session(hyperparameters(config), ends=False)

    def graph(self, model: nn.Module, example: tuple[Any, ...]) -> None:
        # Traced here, because `add_graph` would call the model twice more to check the trace.
        traced = torch.jit.trace(model, example, strict=False, check_trace=False)
        for module in traced.modules():
            with contextlib.suppress(RuntimeError):  # the forward pass does not call this module
                for node in module.graph.nodes():
                    for value in node.outputs():
                        if value.debugName().isdigit():
                            kind = node.kind().rpartition(":")[2]
                            value.setDebugName(kind.replace("CallMethod", "result"))
        self.writer.add_graph(traced, example)

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        items = []
        for tag, pixels in images.items():
            file = io.BytesIO()  # `add_image` compresses harder, which takes four times as long
            Image.fromarray(pixels).save(file, "PNG", compress_level=3)
            height, width, _ = pixels.shape
            image = Summary.Image(height=height, width=width, encoded_image_string=file.getvalue())
            items.append(Summary.Value(tag=tag, image=image))
        self.writer.file_writer.add_summary(Summary(value=items), step)

    def texts(self, step: int, texts: Mapping[str, str]) -> None:
        for tag, text in texts.items():
            self.writer.add_text(tag, _block(text), step)

    def histograms(self, step: int, values: Mapping[str, Tensor]) -> None:
        for tag, tensor in values.items():
            finite = tensor.detach().to_dense().double().ravel()
            finite = finite[finite.isfinite()]
            with contextlib.suppress(ValueError):  # no values, or too close to each other for bins
                self.writer.add_histogram(tag, finite, step, bins=64)

    def new_best(self, step: int, values: Mapping[str, float]) -> None:
        self.scalars(step, values)

    def finish(self, step: int, values: Mapping[str, float]) -> None:
        self.scalars(step, values)
        self._session({}, ends=True)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        if "writer" in vars(self):
            self.writer.close()

    def _session(self, parameters: Mapping[str, Any], ends: bool) -> None:
        """Write the start or the end of a row in the HPARAMS tab."""
        # `add_hparams` would write both at once, into a folder of its own.
        from torch.utils.tensorboard.summary import hparams

        _, start, end = hparams(dict(parameters), {})
        self.writer.file_writer.add_summary(end if ends else start)


def _layout(tags: set[str]) -> dict[str, dict[str, list[Any]]]:
    """The layout of the CUSTOM SCALARS tab: a chart for each value, one for all learning rates."""
    charts: dict[str, list[Any]] = {}
    for tag in sorted(tags, key=lambda tag: (not tag.endswith("/loss"), tag)):
        place, _, key = tag.partition("/")
        if place in ("train", "train_epoch", "val"):
            charts.setdefault(key, ["Multiline", []])[1].append(f"^{re.escape(tag)}$")
    return {"training and validation": charts, "learning rate": {"lr": ["Multiline", ["^lr/"]]}}


def _block(text: str, language: str = "") -> str:
    """A Markdown block that shows a text unchanged."""
    return f"```{language}\n{text.rstrip()}\n```"
