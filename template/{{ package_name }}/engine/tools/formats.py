"""How each export format is written and loaded back."""

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

Arguments = tuple[Any, ...]

Forward = Callable[..., Any]


def traced(model: nn.Module, arguments: Arguments) -> Any:
    """The model's graph, for batches of any size."""
    batch = torch.export.Dim("batch")
    size = first(arguments).shape[0]
    dynamic = tuple(
        {0: batch} if isinstance(a, Tensor) and a.ndim and a.shape[0] == size else None
        for a in arguments
    )
    with _quiet():
        return torch.export.export(model, arguments, dynamic_shapes=dynamic)


def write_torch(
    model: nn.Module, arguments: Arguments, facts: dict[str, str], path: Path
) -> Forward:
    with _quiet():
        extra = {"metadata.json": json.dumps(facts, ensure_ascii=False)}
        torch.export.save(traced(model, arguments), path, extra_files=extra)
        loaded: Forward = torch.export.load(path).module()
    return loaded


def write_safetensors(
    model: nn.Module, arguments: Arguments, facts: dict[str, str], path: Path
) -> Forward:
    from safetensors.torch import load_model, save_model

    save_model(model, str(path), metadata=facts)  # tied weights are stored once
    loaded = copy.deepcopy(model)
    for tensor in loaded.state_dict().values():  # so that what the file lacks cannot go unnoticed
        tensor.fill_(0)
    load_model(loaded, str(path))
    return loaded


def write_onnx(
    model: nn.Module, arguments: Arguments, facts: dict[str, str], path: Path
) -> Forward:
    import onnxruntime

    with _quiet():
        program: Any = torch.onnx.export(traced(model, arguments), verbose=False, dynamo=True)
        program.model.metadata_props.update(facts)
        program.save(str(path), external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [put.name for put in session.get_inputs()]

    def run(*values: Any) -> list[Tensor]:
        feed = {n: v.cpu().numpy() for n, v in zip(names, tensors(values), strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return run


FORMATS: dict[str, tuple[Callable[..., Forward], tuple[str, ...], str]] = {
    "torch": (write_torch, (), "model.pt2"),
    "safetensors": (write_safetensors, ("safetensors",), "model.safetensors"),
    "onnx": (write_onnx, ("onnx", "onnxruntime", "onnxscript"), "model.onnx"),
}
"""By name: what writes it and returns the loaded model, the packages it needs, its file."""


def check_formats(formats: Sequence[str]) -> None:
    """Refuse unknown formats and missing packages, before anything is built. Raises `UserError`."""
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"There is no format '{name}'; choose among {', '.join(FORMATS)}.")
        for package in FORMATS[name][1]:
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"The format {name} needs the package '{package}': uv add "
                    f"{' '.join(FORMATS[name][1])}."
                )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what torch's exporters print and warn of; failures still raise."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def tensors(values: Any) -> list[Tensor]:
    """All tensors in nested values, in order."""
    return [v for v in torch.utils._pytree.tree_leaves(values) if isinstance(v, Tensor)]


def first(arguments: Arguments) -> Tensor:
    """The first argument that holds one entry per sample."""
    return next(a for a in arguments if isinstance(a, Tensor) and a.ndim)


def per_sample(change: Callable[[Tensor], Tensor], arguments: Arguments) -> Arguments:
    """`change` for every argument that holds one entry per sample."""
    size = first(arguments).shape[0]
    return tuple(
        change(a) if isinstance(a, Tensor) and a.ndim and a.shape[0] == size else a
        for a in arguments
    )
