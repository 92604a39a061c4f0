"""`export RUN`: the model as files for elsewhere, each checked before it gets its name."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..build import told
from ..device import to_device
from ..errors import Exit, UserError
from ..setup import held_out
from .folders import shown, writing_to
from .open_run import Opened

TOLERANCE = 1e-4
"""Largest difference of outputs, relative to the largest output: other kernels round otherwise."""

Arguments = tuple[Any, ...]
Forward = Callable[..., Any]


class NotExported(Exit):
    """A model that cannot be exported, or comes back as one that computes something else."""


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


@torch.no_grad()
def export(run: Opened, formats: Sequence[str], out: Path) -> None:
    """Write the formats to `out`, or none of them. Raises `UserError`, `NotExported`."""
    arguments = example(run)
    facts = metadata(run)
    sizes = "1" if _first(arguments).shape[0] == 1 else f"1 and {_first(arguments).shape[0]}"
    # Written beside its place and renamed when all are checked.
    with writing_to(out), tempfile.TemporaryDirectory(prefix=".export-", dir=out) as hidden:
        files = {}
        for name in formats:
            write, _, file_name = FORMATS[name]
            path = Path(hidden) / file_name
            try:
                loaded = write(run.model, arguments, facts, path)
            except (OSError, Exit):
                raise
            except Exception as error:  # whatever a model makes the tracers raise
                raise NotExported(
                    f"{type(run.model).__name__} cannot be exported as {name}: {_short(error)}"
                ) from error
            difference = compare(run.model, loaded, arguments, name)
            files[path] = (out / file_name, difference)
        for path, (place, difference) in files.items():
            os.replace(path, place)
            kilobytes = place.stat().st_size / 1000
            print(
                f"{shown(place)}: {kilobytes:,.0f} kB, differs by {difference:.1e} on batches of {sizes}"
            )


def example(run: Opened) -> Arguments:
    """What to call the model with: from a validation batch, two samples at least."""
    loader = held_out(run.built, "val") or held_out(run.built, "train")
    if loader is None:
        raise UserError("The data have neither a val nor a train split to take a batch from.")
    batch = to_device(loader.first(), run.built.device)
    arguments = run.built.task.example(batch)
    if not any(isinstance(a, Tensor) and a.ndim for a in arguments):
        raise UserError("The task's `example` must return a tuple with a tensor of a batch.")
    if _first(arguments).shape[0] == 1:  # torch.export would take a size of 1 for a constant
        arguments = _map(lambda t: torch.cat([t, t]), arguments)
    return arguments


def metadata(run: Opened) -> dict[str, str]:
    """What a reader of the file needs besides the weights; JSON texts where it is no text."""
    info, split = run.built.data.info, run.built.data.split("val")
    facts: dict[str, Any] = {k: info[k] for k in ("class_names", "classes", "shape") if k in info}
    for key in ("mean", "std"):  # of pixels from 0 to 1
        value = getattr(split, key, None)
        if isinstance(value, Tensor):
            facts[key] = value.flatten().tolist()
    facts |= {"model": run.built.config.model, **run.describe()}
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}


def compare(model: nn.Module, loaded: Forward, arguments: Arguments, name: str) -> float:
    """The largest difference on the batch and on its first sample. Raises `NotExported`."""
    largest = 0.0
    for part in (arguments, _map(lambda t: t[:1], arguments)):
        for wanted, got in zip(_tensors(model(*part)), _tensors(loaded(*part)), strict=True):
            wanted, got = wanted.double(), got.double()
            scale = wanted.abs().max().clamp(min=1.0)
            far = (wanted - got.to(wanted.device)).abs().max() / scale
            if wanted.shape != got.shape or not far <= TOLERANCE:
                raise NotExported(
                    f"The model exported as {name} computes something else: shape "
                    f"{tuple(got.shape)} for {tuple(wanted.shape)}, largest difference "
                    f"{float(far):.1e}; nothing was written."
                )
            largest = max(largest, float(far))
    return largest


# ---------------------------------------------------------------- the formats


def traced(model: nn.Module, arguments: Arguments) -> Any:
    """The model's graph, for batches of any size."""
    batch = torch.export.Dim("batch")
    size = _first(arguments).shape[0]
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
        feed = {n: v.cpu().numpy() for n, v in zip(names, _tensors(values), strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return run


FORMATS: dict[str, tuple[Callable[..., Forward], tuple[str, ...], str]] = {
    "torch": (write_torch, (), "model.pt2"),
    "safetensors": (write_safetensors, ("safetensors",), "model.safetensors"),
    "onnx": (write_onnx, ("onnx", "onnxruntime", "onnxscript"), "model.onnx"),
}
"""By name: what writes it and returns the loaded model, the packages it needs, its file."""


# ---------------------------------------------------------------- helpers


@contextlib.contextmanager
def _quiet() -> Any:
    """Hides what torch's exporters print and warn of; failures still raise."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _tensors(values: Any) -> list[Tensor]:
    return [v for v in torch.utils._pytree.tree_leaves(values) if isinstance(v, Tensor)]


def _first(arguments: Arguments) -> Tensor:
    return next(a for a in arguments if isinstance(a, Tensor) and a.ndim)


def _map(change: Callable[[Tensor], Tensor], arguments: Arguments) -> Arguments:
    """`change` for every argument that holds one entry per sample."""
    size = _first(arguments).shape[0]
    return tuple(
        change(a) if isinstance(a, Tensor) and a.ndim and a.shape[0] == size else a
        for a in arguments
    )


def _short(error: Exception) -> str:
    text = told(error)
    return text if len(text) < 400 else f"{text[:400].rstrip('.')} …."
