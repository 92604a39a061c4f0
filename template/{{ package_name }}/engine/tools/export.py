"""`export RUN`: write the model as files that work without this project, each checked first."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..build.target import told
from ..errors import Exit, UserError
from ..machine.device import to_device
from ..paths import shown
from ..setup import held_out
from .folders import writing_to
from .formats import FORMATS, Arguments, Forward, per_sample, samples_in, tensors_in
from .open_run import Opened

TOLERANCE = 1e-4
"""Largest allowed difference, as a share of the largest output: other kernels round differently."""


class NotExported(Exit):
    """The model cannot be exported, or the exported model computes something else."""


@torch.no_grad()
def export_run(run: Opened, formats: Sequence[str], out: Path) -> None:
    """Write all formats to `out`, or none of them. Raises `UserError`, `NotExported`."""
    # The exported model is compared with the results of other kernels, which do not use tf32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    arguments, facts = example_arguments(run), metadata(run)
    count = samples_in(arguments)
    sizes = "1" if count == 1 else f"1 and {count}"
    with writing_to(out), tempfile.TemporaryDirectory(prefix=".export-", dir=out) as hidden:
        differences = {}
        for name in formats:
            write, _, file_name = FORMATS[name]
            try:
                loaded = write(run.model, arguments, facts, Path(hidden) / file_name)
            except (OSError, Exit):
                raise
            except Exception as error:  # a model can make the exporters raise anything
                raise NotExported(
                    f"{type(run.model).__name__} cannot be exported as {name}: {told(error)}"
                ) from error
            differences[file_name] = largest_difference(run.model, loaded, arguments, name)
        for file_name, difference in differences.items():
            path = out / file_name
            os.replace(Path(hidden) / file_name, path)
            size = f"{path.stat().st_size / 1000:,.0f} kB"
            print(f"{shown(path)}: {size}, differs by {difference:.1e} on batches of {sizes}")


def example_arguments(run: Opened) -> Arguments:
    """Return what to call the model with: a validation batch of at least two samples."""
    loader = held_out(run.built, "val") or held_out(run.built, "train")
    if loader is None:
        raise UserError("The data have no val and no train split. Export needs a batch of one.")
    arguments = run.built.task.example(to_device(loader.first(), run.built.device))
    if not any(isinstance(a, Tensor) and a.ndim for a in arguments):
        raise UserError("The task's `example` must return a tuple with a tensor of a batch.")
    if samples_in(arguments) == 1:  # torch.export would treat a size of 1 as a constant
        arguments = per_sample(lambda t: torch.cat([t, t]), arguments)
    return arguments


def metadata(run: Opened) -> dict[str, str]:
    """Return what a reader of the file needs besides the weights, as text or JSON."""
    info, split = run.built.data.info, run.built.data.split("val")
    facts: dict[str, Any] = {k: info[k] for k in ("class_names", "classes", "shape") if k in info}
    offset, scale = getattr(split, "offset", None), getattr(split, "scale", None)
    if isinstance(offset, Tensor) and isinstance(scale, Tensor):  # for pixels from 0 to 1
        facts["mean"] = (offset / 255).flatten().tolist()
        facts["std"] = (1 / (255 * scale)).flatten().tolist()
    facts |= {"model": run.built.config.model, **run.describe()}
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}


def largest_difference(model: nn.Module, loaded: Forward, arguments: Arguments, name: str) -> float:
    """Compare outputs on the batch and on its first sample. Raises `NotExported`."""
    largest = 0.0
    for part in (arguments, per_sample(lambda t: t[:1], arguments)):
        for wanted, got in zip(tensors_in(model(*part)), tensors_in(loaded(*part)), strict=True):
            wanted, got = wanted.double(), got.double().to(wanted.device)
            difference = (wanted - got).abs().max() / wanted.abs().max().clamp(min=1.0)
            if wanted.shape != got.shape or not difference <= TOLERANCE:
                raise NotExported(
                    f"The model exported as {name} computes something else: shape "
                    f"{tuple(got.shape)} for {tuple(wanted.shape)}, largest difference "
                    f"{float(difference):.1e}. Nothing was written."
                )
            largest = max(largest, float(difference))
    return largest
