"""Where and how numbers are computed: device, precision, determinism."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch

from ..config.schema import Config
from ..errors import UserError
from .distributed import LOCAL_RANK, WORLD_SIZE
from .torch_internals import set_deterministic


def choose_device(name: str) -> torch.device:
    """The device of `device=`; "auto" is the first GPU where there is one. Raises `UserError`."""
    if name in ("auto", "cuda") and WORLD_SIZE > 1 and torch.cuda.is_available():
        name = f"cuda:{LOCAL_RANK}"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device={name} is unknown: name auto, cpu, cuda or cuda:<n>.") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name} is not supported: name auto, cpu, cuda or cuda:<n>.")
    if device.type == "cpu" and device.index:
        raise UserError(f"device={name} is unknown: there is one cpu.")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(f"device={name} is not there: this machine has {count} usable GPUs.")
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """fp32, tf32, bf16 or fp16; "auto" is bf16 on a GPU that computes it, else fp32."""
    on_gpu = device.type == "cuda"
    if name == "auto":
        return (
            "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        )
    if name in ("tf32", "fp16") and not on_gpu:
        raise UserError(f"precision={name} needs a GPU; on {device} take fp32 or bf16.")
    if name == "bf16" and on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError("precision=bf16 needs a GPU that computes bf16; take fp16 or fp32.")
    return name


def set_flags(config: Config, precision: str) -> None:
    """Process-wide switches of torch; called before anything touches the GPU."""
    strict = config.deterministic != "false"
    if strict:  # read by cuBLAS when it starts
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    warn_only = config.deterministic == "warn"
    set_deterministic(strict, warn_only, compiles=config.compile != "false")
    # Filling fresh memory finds reads of uninitialised values but costs time at every allocation.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = strict
    torch.backends.cudnn.benchmark = not strict
    tf32 = precision in ("tf32", "bf16", "fp16")
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a forward pass runs."""
    if precision in ("bf16", "fp16"):
        dtype = torch.bfloat16 if precision == "bf16" else torch.float16
        return torch.autocast(device.type, dtype=dtype)
    return nullcontext()


def map_tensors(function: Callable[[Any], Any], batch: Any, kind: type = torch.Tensor) -> Any:
    """Apply `function` to each tensor, or each object of `kind`, in a nested batch.

    Lists and tuples keep their type, mappings become dicts, other values stay as they are.
    """
    if isinstance(batch, kind):
        return function(batch)
    if isinstance(batch, Mapping):
        return {k: map_tensors(function, v, kind) for k, v in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(function, v, kind) for v in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(map_tensors(function, v, kind) for v in batch)
    return batch


def to_device(batch: Any, device: torch.device, channels_last: bool = False) -> Any:
    """`batch` with every tensor in it moved, see `map_tensors`; images laid out as NHWC where
    `channels_last` says so."""
    if device.type == "cpu" and not channels_last:
        return batch

    def move(tensor: torch.Tensor) -> torch.Tensor:
        if device.type != "cpu":
            tensor = tensor.to(device, non_blocking=True)  # asynchronous from pinned memory
        if channels_last and tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    return map_tensors(move, batch)


@cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all readers, as torch keeps memory for each stream."""
    return torch.cuda.Stream(device)


def prefetched(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """`batches` on a GPU: each is copied on a stream of its own while the GPU computes with the
    one before."""
    side = _copying_stream(device)
    waiting: tuple[Any, torch.cuda.Event] | None = None

    def hand_over(batch: Any, copied: torch.cuda.Event) -> Any:
        computing = torch.cuda.current_stream(device)
        computing.wait_event(copied)  # the GPU waits, not the host

        def belongs(tensor: torch.Tensor) -> torch.Tensor:
            # Its memory came from the side stream and may be reused only when this one is done.
            tensor.record_stream(computing)
            return tensor

        return map_tensors(belongs, batch)

    for batch in batches:
        with torch.cuda.stream(side):
            following = to_device(batch, device), side.record_event()
        if waiting is not None:
            yield hand_over(*waiting)
        waiting = following
    if waiting is not None:
        yield hand_over(*waiting)


def libraries(device: torch.device) -> dict[str, str]:
    """The versions of what computes on a GPU: one version of torch is built for several."""
    if device.type != "cuda":
        return {}
    return {"CUDA": str(torch.version.cuda), "cuDNN": str(torch.backends.cudnn.version())}


def describe(device: torch.device) -> str:
    """The processor's or GPU's name, for the manifest."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:  # not Linux: the general name has to do
        pass
    import platform

    return platform.processor() or platform.machine()
