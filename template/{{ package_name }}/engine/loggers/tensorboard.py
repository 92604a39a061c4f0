"""TensorBoard's event files."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import shlex
import socket
import time
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
from ..loggers import histogram, hyperparameters


class TensorBoard(Logger):
    """Event files in the run folder; a resumed run continues its curves without overlap.

    `flush_secs`: values are on the disk after so many seconds, to watch a run, and before each
    checkpoint.
    """

    def __init__(self, folder: Path, next_step: int, flush_secs: int = 10) -> None:
        self.folder, self.next_step, self.flush_secs = folder, next_step, flush_secs
        self.tags: set[str] = set()
        self.layout: dict[str, dict[str, list[Any]]] = {}

    @cached_property
    def file(self) -> EventFile:
        # Opened with the first value, not before the first step, which its imports would delay.
        return EventFile(self.folder / "tensorboard", self.next_step, self.flush_secs)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        # One event for all values: add_scalar costs ten times as much per value.
        items = [Summary.Value(tag=tag, simple_value=v) for tag, v in values.items()]
        self._write(Summary(value=items), step)
        if values.keys() <= self.tags:
            return
        self.tags.update(values)
        layout = charts(self.tags)
        if layout != self.layout:
            self.layout = layout
            from torch.utils.tensorboard.summary import custom_scalars

            self._write(custom_scalars(layout), 0)

    def begin(self, step: int, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard.summary import hparams

        facts = {key: value for key, value in manifest.items() if key != "command"}
        texts = {
            "command": _block(shlex.join(["python", *manifest["command"]])),
            "config": _block(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), "yaml"),
            "manifest": _block(json.dumps(facts, indent=2, ensure_ascii=False), "json"),
        }
        self._texts(step, texts)
        # Without the first summary, which names columns, the HPARAMS tab takes those of all runs.
        _, start, _ = hparams(hyperparameters(config), {})
        self._write(start, 0)

    def graph(self, model: nn.Module, example: tuple[Any, ...]) -> None:
        from tensorboard.compat.proto.graph_pb2 import GraphDef
        from torch.utils.tensorboard._pytorch_graph import parse

        # What add_graph does, without the check that calls the model twice more.
        traced = torch.jit.trace(model, example, strict=False, check_trace=False)
        graph = GraphDef(node=parse(traced.inlined_graph, traced, example))
        self.file.write(graph_def=graph.SerializeToString())

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        items = []
        for tag, pixels in images.items():
            file = io.BytesIO()  # add_image would compress a grid four times as long
            Image.fromarray(pixels).save(file, "PNG", compress_level=3)
            image = Summary.Image(
                height=pixels.shape[0],
                width=pixels.shape[1],
                colorspace=3,
                encoded_image_string=file.getvalue(),
            )
            items.append(Summary.Value(tag=tag, image=image))
        self._write(Summary(value=items), step)

    def texts(self, step: int, texts: Mapping[str, str]) -> None:
        self._texts(step, {tag: _block(text) for tag, text in texts.items()})

    def histograms(self, step: int, values: Mapping[str, Tensor]) -> None:
        from torch.utils.tensorboard.summary import histogram_raw

        for tag, tensor in values.items():
            numbers, counts, edges = histogram(tensor)
            summary = histogram_raw(
                tag,
                min=float(numbers.min()) if numbers.size else 0.0,
                max=float(numbers.max()) if numbers.size else 0.0,
                num=numbers.size,
                sum=float(numbers.sum()),
                sum_squares=float(np.square(numbers).sum()),
                bucket_limits=edges[1:].tolist(),
                bucket_counts=counts.tolist(),
            )
            self._write(summary, step)

    def finish(self, step: int, values: Mapping[str, float]) -> None:
        from torch.utils.tensorboard.summary import hparams

        self.scalars(step, values)
        _, _, end = hparams({}, {})
        self._write(end, 0)

    def flush(self) -> None:
        if "file" in vars(self):
            self.file.flush()

    def close(self) -> None:
        if "file" in vars(self):
            self.file.close()

    def _texts(self, step: int, texts: Mapping[str, str]) -> None:
        from torch.utils.tensorboard.summary import text

        for tag, words in texts.items():
            self._write(text(tag, words), step)

    def _write(self, summary: Any, step: int) -> None:
        self.file.write(step=step, summary=summary)


class EventFile:
    """A file of events, written in this thread: the usual writer's thread takes turns with the
    training loop, which costs a small step more than writing does."""

    def __init__(self, folder: Path, next_step: int, flush_secs: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}"
        while (path := folder / f"{name}.{next(_numbers)}").exists():
            pass
        self.event, self.flush_secs, self.flushed = Event, flush_secs, time.monotonic()
        self.stream = open(path, "ab")  # noqa: SIM115 - open as long as the run
        self.records = RecordWriter(self.stream)
        self.write(file_version="brain.Event:2")
        # Whatever a killed process logged from `next_step` on will be logged again.
        self.write(step=next_step, session_log=SessionLog(status=SessionLog.START))
        self.flush()

    def write(self, **fields: Any) -> None:
        """Append an event of now with these fields."""
        event = self.event(wall_time=time.time(), **fields)
        self.records.write(event.SerializeToString())
        if time.monotonic() - self.flushed > self.flush_secs:
            self.flush()

    def flush(self) -> None:
        self.stream.flush()
        self.flushed = time.monotonic()

    def close(self) -> None:
        self.stream.close()


_numbers = itertools.count()


def charts(tags: set[str]) -> dict[str, dict[str, list[Any]]]:
    """The layout of the CUSTOM SCALARS tab: training and validation of one value in one chart,
    and the rates of all groups in one."""
    keys: dict[str, list[str]] = {}
    for tag in sorted(tags):
        place, _, key = tag.partition("/")
        if place in ("train", "train_epoch", "val"):
            keys.setdefault(key, []).append(f"^{re.escape(tag)}$")
    layout = {"training and validation": {key: ["Multiline", found] for key, found in keys.items()}}
    if any(tag.startswith("lr/") for tag in tags):
        layout["learning rate"] = {"lr": ["Multiline", ["^lr/"]]}
    return layout


def _block(text: str, language: str = "") -> str:
    """Markdown that shows a text as it is."""
    return f"```{language}\n{text.rstrip()}\n```"
