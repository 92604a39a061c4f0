"""Sinks for logged values, besides the `metrics.jsonl` that every run writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .api import Logger


class TensorBoard(Logger):
    """Event files in the run folder; a resumed run continues its curves without overlap."""

    def __init__(self, folder: Path, next_step: int, flush_secs: int = 10) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard import SummaryWriter

        self._summary = Summary
        # Whatever a killed process logged from `next_step` on will be logged again.
        self.writer = SummaryWriter(
            str(folder / "tensorboard"),
            purge_step=next_step if next_step else None,
            flush_secs=flush_secs,
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        # One event for all values: add_scalar costs ten times as much per value.
        items = [self._summary.Value(tag=tag, simple_value=v) for tag, v in values.items()]
        self.writer._get_file_writer().add_summary(self._summary(value=items), step)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
