"""Saves without keeping training waiting: a copy of the state now, the file in a thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..machine.torch_internals import copy_all
from . import checkpoint


class Saver:
    """Writes the checkpoints of a run, never two at once.

    Training waits for the copy alone, into buffers that are kept from save to save (pinned memory
    for what lies on a GPU). What goes wrong in the thread is raised by the next call.
    """

    def __init__(self, folder: Path, keep_last: int) -> None:
        self.folder, self.keep_last = folder, keep_last
        self._buffers: dict[tuple[Any, ...], Tensor] = {}
        self._thread: threading.Thread | None = None
        self.error: Exception | None = None
        """The failure of the last write, until `check` raises it."""

    def save(self, state: Mapping[str, Any], step: int, best: bool = False) -> None:
        """Begin to write a checkpoint of `step`; with `best`, name it best.pt as well.

        `state` holds tensors and primitives in dicts, lists and tuples, and may change as soon as
        this returns. Raises `SaveError` for the save before.
        """
        self.wait()
        self._begin(self._copy(state), step, best)

    def is_writing(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def check(self) -> None:
        """Raises `SaveError` where a write has failed; never waits."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def wait(self) -> None:
        """Until everything is on the disk. Raises `SaveError`."""
        self.close()
        self.check()

    def close(self) -> None:
        """The same, leaving errors unsaid: for the end of a run that fails for another reason."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _begin(self, state: Mapping[str, Any], step: int, best: bool) -> None:
        copied = torch.cuda.Event() if torch.cuda.is_initialized() else None
        if copied is not None:
            copied.record()
        self._thread = threading.Thread(target=self._write, args=(state, step, best, copied))
        self._thread.start()

    def _write(
        self, state: Mapping[str, Any], step: int, best: bool, copied: torch.cuda.Event | None
    ) -> None:
        try:
            if copied is not None:
                copied.synchronize()
            path = checkpoint.path_of(self.folder, step)
            checkpoint.save(state, path, best)
            checkpoint.prune(path, self.keep_last)
        except Exception as error:  # of whatever kind: a thread has nobody to raise it to
            self.error = error

    def _copy(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """`state` with every tensor replaced by its buffer, holding the same values."""
        sources: list[Tensor] = []
        targets: list[Tensor] = []

        def copy(value: Any, place: tuple[Any, ...]) -> Any:
            if isinstance(value, Tensor):
                buffer = self._buffer(value, place)
                sources.append(value.detach())
                targets.append(buffer)
                return buffer
            if isinstance(value, Mapping):
                return {key: copy(v, (*place, key)) for key, v in value.items()}
            if isinstance(value, list | tuple):
                items = [copy(v, (*place, number)) for number, v in enumerate(value)]
                return items if isinstance(value, list) else tuple(items)
            return value

        copied: dict[str, Any] = copy(state, ())
        if targets:
            with torch.no_grad():
                copy_all(targets, sources)
        return copied

    def _buffer(self, value: Tensor, place: tuple[Any, ...]) -> Tensor:
        buffer = self._buffers.get(place)
        if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
            pin = value.device.type == "cuda"
            buffer = torch.empty_like(value, device="cpu", pin_memory=pin, requires_grad=False)
            self._buffers[place] = buffer
        return buffer
