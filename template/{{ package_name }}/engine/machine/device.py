"""Where and how numbers are computed: device, precision, determinism."""

import contextlib
import os
import platform
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import metadata
from itertools import chain, pairwise
from operator import methodcaller
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config.schema import Config
from ..errors import DeviceError, UserError
from .distributed import LOCAL_WORLD_SIZE, RANK, WORLD_SIZE, from_all, own_gpu
from .torch_internals import set_deterministic


def choose_device(name: str) -> torch.device:
    """Return the device that `device=` names; "auto" prefers a GPU. Raises `UserError`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu(:0)?|cuda(:[1-9]?\d)?", name):
        raise UserError(f"Unknown device={name}. Name auto, cpu, cuda or cuda:<n>.")
    device = torch.device(name)
    on_gpu = device.type == "cuda"
    count = torch.cuda.device_count() if on_gpu and torch.cuda.is_available() else 0
    index = own_gpu() if device.index is None else device.index
    own: str | None = f"rank {RANK}"  # a text that no other process has
    if on_gpu and (index is None or index >= count):
        own = None
    elif on_gpu and WORLD_SIZE > 1:
        own = f"{platform.node()} {torch.cuda.get_device_properties(index).uuid}"
    kinds, owned = zip(*from_all((device.type, own)), strict=True)
    if len(set(kinds)) > 1:
        raise DeviceError(
            "device=auto finds a GPU on some hosts only. Take hosts that all have GPUs, or set device=cpu."
        )
    if None in owned or len(set(owned)) < WORLD_SIZE:
        told = f"device={name} does not exist. This machine has {count} usable GPUs"
        several = f" for {LOCAL_WORLD_SIZE} processes. Each needs its own, on every host"
        raise DeviceError(f"{told}{several if WORLD_SIZE > 1 else ''}.")
    if on_gpu:
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """Return fp32, tf32, bf16 or fp16. "auto" is bf16 on a GPU that computes it, else fp32."""
    on_gpu = device.type == "cuda"
    has_bf16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        return "bf16" if has_bf16 else "fp32"
    if (name in ("tf32", "fp16") and not on_gpu) or (name == "bf16" and on_gpu and not has_bf16):
        raise UserError(f"precision={name} does not work on {device}. Set auto or fp32.")
    return name


def set_flags(config: Config, precision: str) -> None:
    """Set the switches of torch for this process, before anything uses the GPU."""
    strict = config.deterministic != "false"
    if strict:  # cuBLAS reads it when it starts
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    set_deterministic(strict, config.deterministic == "warn", config.compile != "false")
    # Filling new memory takes time at each allocation. It only helps to find uninitialised reads.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = strict
    torch.backends.cudnn.benchmark = not strict
    torch.autograd.set_detect_anomaly(config.detect_anomaly)
    if config.virtual_ranks is not None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # as torchrun does: sums depend on the number of threads
    tf32 = precision in ("tf32", "bf16", "fp16")
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context for a forward pass."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def move_model(model: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    """Move a model. `channels_last`: lay out its weights as NHWC, once lazy modules have shapes."""
    model = model.to(device)
    if channels_last and not any(map(nn.parameter.is_lazy, model.parameters())):
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def map_tensors(function: Callable[[Any], Any], batch: Any, kind: type = torch.Tensor) -> Any:
    """Apply `function` to each tensor, or each object of `kind`, in a nested batch.

    Lists and tuples keep their type, mappings become dicts, other values stay as they are.
    """
    if isinstance(batch, kind):
        return function(batch)
    if isinstance(batch, Mapping):
        return {k: map_tensors(function, v, kind) for k, v in batch.items()}
    if isinstance(batch, list | tuple):
        values = [map_tensors(function, v, kind) for v in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    return batch


def each(values: Any, kind: type = torch.Tensor) -> Iterator[Any]:
    """Yield each tensor, or each object of `kind`, in nested mappings, lists and tuples, in order."""
    if isinstance(values, kind):
        yield values
    elif isinstance(values, Mapping | list | tuple):
        for value in values.values() if isinstance(values, Mapping) else values:
            yield from each(value, kind)


def shapes(value: Any) -> str:
    """Return the shapes and types in a sample or a batch, such as "(3×8×8, int)"."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shapes(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(shapes, value))})"
    shape = getattr(value, "shape", None)
    return "×".join(map(str, shape)) if isinstance(shape, tuple) and shape else type(value).__name__


def to_device(batch: Any, device: torch.device, channels_last: bool = False) -> Any:
    """Move the tensors of a batch. `channels_last`: lay out those with four dimensions as NHWC."""
    if device.type == "cpu" and not channels_last:
        return batch

    def move(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.to(device, non_blocking=True)  # asynchronous from pinned memory
        if channels_last and tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    return map_tensors(move, batch)


def ended(batches: Iterable[Any]) -> AbstractContextManager[Any]:
    """Close `batches` at the end of the block. It ends the loader workers that read them."""
    return contextlib.closing(batches) if isinstance(batches, Generator) else nullcontext()


@cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    """Return one stream for all loaders, because torch keeps memory for each stream."""
    return torch.cuda.Stream(device)


def prefetched(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """Yield batches on a GPU. It copies each batch while it computes with the batch before."""
    side = _copying_stream(device)

    def copy(batch: Any) -> tuple[Any, Any]:
        with torch.cuda.stream(side):
            return to_device(batch, device), side.record_event()

    with ended(batches):
        for (batch, copied), _ in pairwise(chain(map(copy, batches), [(None, None)])):
            computing = torch.cuda.current_stream(device)
            computing.wait_event(copied)  # the GPU waits, not the host
            # Otherwise the memory could be reused before that stream has read it.
            map_tensors(methodcaller("record_stream", computing), batch)
            yield batch


def make_fingerprint(
    device: torch.device, data: str, parallel: str = "ddp", size: int = WORLD_SIZE
) -> dict[str, Any]:
    """Return what the bits of a result depend on besides the config. `data`: that of the data."""
    versions = {"python": platform.python_version()}
    if device.type == "cuda":  # one version of torch exists for several of these
        versions["CUDA"] = str(torch.version.cuda)
        versions["cuDNN"] = str(torch.backends.cudnn.version())
    for package in ("torch", "torchvision", "numpy", "hydra-core", "tensorboard"):
        versions[package] = "not installed"
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "versions": versions,
        "machine": platform.machine(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "world_size": size,
        "parallel": parallel,
        "data": data,
    }


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    linux = Path("/proc/cpuinfo")
    text = linux.read_text(encoding="utf-8") if linux.exists() else ""
    found = re.search(r"^model name\s*:(.*)", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()
