"""Saves without keeping training waiting: a copy of the state now, the file in a thread."""

import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import NotFiniteError, UserError
from ..machine.sharding import local, map_places, staged
from ..machine.torch_internals import for_each
from . import checkpoint
from .names import newest_first, path_of

PARTS = ("model", "ema", "loss", "optimizer", "optimizer_values")
"""The keys of a checkpoint whose tensors must be finite."""

_PLAIN = {bool, int, float, complex, str, bytes, set, type(None), torch.dtype, torch.device}


def bad_places(value: Any, place: str = "") -> Iterator[str]:
    """Yield the places of nested tensors that hold an infinity or a NaN."""
    if isinstance(value, Tensor):
        value = local(value)
        if not (value.coalesce().values() if value.is_sparse else value).isfinite().all():
            yield place
    elif isinstance(value, Mapping | list | tuple):
        for key, one in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from bad_places(one, f"{place}/{key}" if place else str(key))


class Saver:
    """Writes the checkpoints of a run, never two at once.

    Training waits only for a copy, into buffers that are kept from save to save. If the state is on
    a GPU, they are in pinned memory. The next call raises an error of the thread.
    """

    def __init__(self, folder: Path, keep_last: int | None, masks: Collection[str] = ()) -> None:
        """masks: names of tensors of the model and the loss that may be infinite."""
        self.folder, self.keep_last, self.masks = folder, keep_last, masks
        self._buffers: dict[int, Tensor] = {}
        self.thread: threading.Thread | None = None
        self.error: Exception | None = None  # of the last write

    def save(self, state: Mapping[str, Any], step: int, best: bool = False) -> None:
        """Begin to write a checkpoint of `step`, and best.pt as well if it is the `best`.

        `state` may change as soon as this returns. Raises `SaveError` for the save before.
        """
        self.wait()
        sources: list[Tensor] = []
        targets: list[Tensor] = []

        def copy(value: Any, *place: str) -> Any:
            if isinstance(value, Tensor):
                sources.append(local(value.detach()))
                targets.append(self._buffer(sources[-1], len(targets)))
                return staged(value, targets[-1])
            if type(value) not in _PLAIN:  # not even a subclass, such as numpy's float64
                raise UserError(
                    f"{'/'.join(place)} is of type {type(value).__name__}, which a checkpoint cannot "
                    "hold. Make it a tensor, or a number of Python."
                )
            return value

        copied = map_places(copy, state)  # into plain containers: only those can be loaded
        with torch.no_grad():
            for_each("copy_", targets, sources, True)  # without waiting for a GPU
        on_gpu = torch.cuda.is_initialized()
        event = torch.cuda.current_stream().record_event() if on_gpu else None
        self.thread = threading.Thread(target=self._write, args=(copied, step, best, event))
        self.thread.start()

    def wait(self) -> None:
        """Wait until everything is on the disk. Raises `SaveError` or `NotFiniteError`."""
        self.close()
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def close(self) -> None:
        """Wait without raising, for a run that is failing already."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None

    def _write(
        self, state: Mapping[str, Any], step: int, best: bool, event: torch.cuda.Event | None
    ) -> None:
        try:
            if event is not None:
                event.synchronize()  # the copies from the GPU have arrived
            self._refuse_not_finite(state, step)
            path = path_of(self.folder, step)
            checkpoint.save(state, path, best)
            checkpoint.prune(path, self.keep_last)
        except Exception as error:  # nobody would see it in a thread
            self.error = error

    def _refuse_not_finite(self, state: Mapping[str, Any], step: int) -> None:
        for place in bad_places({part: state.get(part) for part in PARTS}):
            if place.partition("/")[2] not in self.masks:
                names = [path.name for path in newest_first(self.folder)]
                last = f"The last checkpoint is {names[0]}." if names else "There is no checkpoint."
                raise NotFiniteError(
                    f"{place} is not finite after step {step}, so this step was not saved. {last} "
                    "Lower lr, or set clip_grad_norm."
                )

    def _buffer(self, value: Tensor, place: int) -> Tensor:
        buffer = self._buffers.get(place)
        if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
            pin = value.device.type == "cuda"
            buffer = torch.empty_like(value, device="cpu", pin_memory=pin, requires_grad=False)
            self._buffers[place] = buffer
        return buffer
