"""The export formats: how each is written and loaded again."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..machine.device import map_tensors

Arguments = tuple[Any, ...]

Forward = Callable[..., Any]


def export_graph(model: nn.Module, arguments: Arguments) -> Any:
    """Return the model's graph for batches of any size."""
    batch = torch.export.Dim("batch")
    dynamic = tuple({0: batch} if is_batch else None for is_batch in _are_batches(arguments))
    return torch.export.export(model, arguments, dynamic_shapes=dynamic)


def write_torch(
    model: nn.Module, arguments: Arguments, facts: dict[str, str], path: Path
) -> Forward:
    extra = {"metadata.json": json.dumps(facts, ensure_ascii=False)}
    with _quiet():
        torch.export.save(export_graph(model, arguments), path, extra_files=extra)
        loaded: Forward = torch.export.load(path).module()
    return loaded


def write_safetensors(
    model: nn.Module, arguments: Arguments, facts: dict[str, str], path: Path
) -> Forward:
    from safetensors.torch import load_model, save_model

    save_model(model, str(path), metadata=facts)  # stores tied weights once
    loaded = copy.deepcopy(model)
    for tensor in loaded.state_dict().values():  # a tensor missing in the file must be noticed
        tensor.fill_(0)
    load_model(loaded, str(path))
    return loaded


def write_onnx(
    model: nn.Module, arguments: Arguments, facts: dict[str, str], path: Path
) -> Forward:
    import onnxruntime

    with _quiet():
        graph = export_graph(model, arguments)
        program: Any = torch.onnx.export(graph, verbose=False, dynamo=True)
        program.model.metadata_props.update(facts)
        program.save(str(path), external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [put.name for put in session.get_inputs()]

    def run(*values: Any) -> list[Tensor]:
        feed = {n: v.cpu().numpy() for n, v in zip(names, tensors_in(values), strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return run


FORMATS: dict[str, tuple[Callable[..., Forward], tuple[str, ...], str]] = {
    "torch": (write_torch, (), "model.pt2"),
    "safetensors": (write_safetensors, ("safetensors",), "model.safetensors"),
    "onnx": (write_onnx, ("onnx", "onnxruntime", "onnxscript"), "model.onnx"),
}
"""By name: a function that writes the file and loads it again, packages, name of the file."""


def check_formats(formats: Sequence[str]) -> None:
    """Refuse unknown formats and missing packages. Raises `UserError`."""
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"Unknown format '{name}'. Choose from {', '.join(FORMATS)}.")
        packages = FORMATS[name][1]
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            raise UserError(
                f"The format {name} needs the package '{missing[0]}'. Install it: "
                f"uv add {' '.join(packages)}"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the output and the warnings of torch's exporters; failures still raise."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def tensors_in(values: Any) -> list[Tensor]:
    """Return all tensors of nested values, in order."""
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(keep, values)
    return found


def samples_in(arguments: Arguments) -> int:
    """Return how many samples the arguments hold: the length of the first tensor."""
    return next(len(a) for a in arguments if isinstance(a, Tensor) and a.ndim)


def _are_batches(arguments: Arguments) -> list[bool]:
    """Tell for each argument whether it holds one entry per sample."""
    size = samples_in(arguments)
    return [isinstance(a, Tensor) and a.ndim > 0 and len(a) == size for a in arguments]


def per_sample(change: Callable[[Tensor], Tensor], arguments: Arguments) -> Arguments:
    """Apply `change` to every argument that holds one entry per sample."""
    flags = _are_batches(arguments)
    return tuple(change(a) if f else a for a, f in zip(arguments, flags, strict=True))
