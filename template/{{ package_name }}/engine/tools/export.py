"""`export RUN`: write the model as files that work without this project, each checked first."""

import contextlib
import copy
import importlib.util
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..build.parts import Built
from ..build.target import describe_error
from ..errors import Failed, UserError
from ..machine.device import each, to_device
from ..paths import shown, to_json
from ..setup import held_out
from ..text import tell
from .folders import writing_to
from .open_run import Opened

Arguments = tuple[Any, ...]
Facts = dict[str, str]
Forward = Callable[..., Any]

TOLERANCE = 1e-4  # as a share of the largest output: other kernels round differently


@torch.no_grad()
def export_run(run: Opened, formats: Sequence[str], out: Path, verbose: bool = False) -> None:
    """Write all formats to `out`, or none of them. Raises `UserError`, `Failed`.

    verbose: show what the exporters print, and raise what they raise.
    """
    # The exported model is compared with the results of other kernels, which do not use tf32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    batch, dataset = example_batch(run.built)
    model, arguments = run.built.model, example_arguments(run, batch)
    facts = describe_model(run, dataset)
    model(*arguments)  # the first call turns lazy modules into usual ones
    differences: dict[str, float] = {}
    with writing_to(out), contextlib.ExitStack() as stack:
        hidden = tempfile.mkdtemp(prefix=".export-", dir=out)
        stack.callback(shutil.rmtree, hidden, ignore_errors=True)
        if not verbose:  # graphs and warnings would hide the sentence of a failure
            stack.callback(os.dup2, os.dup(2), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        for name in formats:
            write, _, file_name = FORMATS[name]
            try:
                loaded = write(model, arguments, facts, Path(hidden, file_name))
            except Exception as error:  # a model can make the exporters raise anything
                if verbose or isinstance(error, OSError):  # `writing_to` reports the latter
                    raise
                text = f"The model cannot be exported as {name}: {describe_error(error)}"
                raise Failed(f"{text} Add -v to see the traceback.") from error
            differences[file_name] = largest_difference(model, loaded, arguments, name)
        for file_name in differences:
            os.replace(Path(hidden, file_name), out / file_name)
    sizes = f"on batches of 1 and {samples_in(arguments)}"
    for file_name, difference in differences.items():
        tell(f"{shown(out / file_name)}: differs from the model by {difference:.1e} {sizes}")


def example_batch(built: Built) -> tuple[Any, Any]:
    """Return a batch and the data set that it is from: made-up samples if the data are not here."""
    try:
        loader = held_out(built, "val") or held_out(built, "train")
    except UserError:
        batch = built.data.made_up()
        if batch is None:
            raise
        return batch, getattr(built.data, "still", None)
    assert loader is not None  # the run has trained on it
    return loader.first(), loader.reader.dataset


def example_arguments(run: Opened, batch: Any) -> Arguments:
    """Return what to call the model with: a batch of at least two samples."""
    arguments = run.built.task.example(to_device(batch, run.built.device))
    if not any(isinstance(a, Tensor) and a.ndim for a in arguments):
        raise UserError("The task's `example` must return a tuple with a tensor of a batch.")
    if samples_in(arguments) == 1:  # torch.export would treat a size of 1 as a constant
        arguments = tuple(torch.cat([a, a]) if is_batch(a, 1) else a for a in arguments)
    return arguments


def describe_model(run: Opened, dataset: Any) -> Facts:
    """Return what a reader of the file needs besides the weights, as text or JSON."""
    info = run.built.info
    facts: dict[str, Any] = {k: info[k] for k in ("class_names", "classes", "shape") if k in info}
    offset, scale = getattr(dataset, "offset", None), getattr(dataset, "scale", None)
    if isinstance(offset, Tensor) and isinstance(scale, Tensor):  # for pixels from 0 to 1
        facts["mean"] = (offset / 255).flatten().tolist()
        facts["std"] = (1 / (255 * scale)).flatten().tolist()
    facts |= {"model": run.built.config.model, **run.describe()}
    return {k: v if isinstance(v, str) else to_json(v) for k, v in facts.items()}


def largest_difference(model: nn.Module, loaded: Forward, arguments: Arguments, name: str) -> float:
    """Compare outputs on the batch and on its first sample. Raises `Failed`."""
    largest, size = 0.0, samples_in(arguments)
    for part in (arguments, tuple(a[:1] if is_batch(a, size) else a for a in arguments)):
        for wanted, got in zip(each(model(*part)), each(loaded(*part)), strict=True):
            wanted, got = wanted.double(), got.double().to(wanted.device)
            scale = wanted.abs().max().clamp(min=1.0)
            same = wanted.shape == got.shape
            difference = float((wanted - got).abs().max() / scale) if same else math.inf
            if not difference <= TOLERANCE:
                text = f"The model exported as {name} computes something else"
                raise Failed(f"{text}: an output differs by {difference:.1e}.")
            largest = max(largest, difference)
    return largest


def export_graph(model: nn.Module, arguments: Arguments) -> Any:
    """Return the model's graph for batches of any size."""
    batch, size = torch.export.Dim("batch"), samples_in(arguments)
    dynamic = tuple({0: batch} if is_batch(a, size) else None for a in arguments)
    return torch.export.export(model, arguments, dynamic_shapes=dynamic)


def write_torch(model: nn.Module, arguments: Arguments, facts: Facts, path: Path) -> Forward:
    extra = {"metadata.json": to_json(facts)}
    torch.export.save(export_graph(model, arguments), path, extra_files=extra)
    return torch.export.load(path).module()


def write_safetensors(model: nn.Module, arguments: Arguments, facts: Facts, path: Path) -> Forward:
    from safetensors.torch import load_model, save_model

    save_model(model, str(path), metadata=facts)  # stores tied weights once
    loaded = copy.deepcopy(model)
    load_model(loaded, str(path))  # raises if a tensor is missing
    return loaded


def write_onnx(model: nn.Module, arguments: Arguments, facts: Facts, path: Path) -> Forward:
    import onnxruntime

    program: Any = torch.onnx.export(export_graph(model, arguments), verbose=False, dynamo=True)
    program.model.metadata_props.update(facts)
    program.save(str(path), external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [put.name for put in session.get_inputs()]

    def run(*values: Any) -> list[Tensor]:
        feed = {n: v.cpu().numpy() for n, v in zip(names, each(values), strict=True)}
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
        if not all(map(importlib.util.find_spec, packages)):
            raise UserError(f"{name} needs packages. Install them: uv add {' '.join(packages)}")


def samples_in(arguments: Arguments) -> int:
    """Return how many samples the arguments hold: the length of the first tensor."""
    return next(len(a) for a in arguments if isinstance(a, Tensor) and a.ndim)


def is_batch(argument: Any, size: int) -> bool:
    """Whether an argument holds one entry for each of `size` samples."""
    return isinstance(argument, Tensor) and argument.ndim > 0 and len(argument) == size
