"""`export RUN`: the model as files for elsewhere, each checked before it gets its name."""

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
from .formats import FORMATS, Arguments, Forward, first, per_sample, tensors
from .open_run import Opened

TOLERANCE = 1e-4
"""Largest difference of outputs, relative to the largest output: other kernels round otherwise."""


class NotExported(Exit):
    """A model that cannot be exported, or comes back as one that computes something else."""


@torch.no_grad()
def export(run: Opened, formats: Sequence[str], out: Path) -> None:
    """Write the formats to `out`, or none of them. Raises `UserError`, `NotExported`."""
    # What is exported is compared with what other processors compute, which have no tf32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    arguments = example(run)
    facts = metadata(run)
    sizes = "1" if first(arguments).shape[0] == 1 else f"1 and {first(arguments).shape[0]}"
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
                    f"{type(run.model).__name__} cannot be exported as {name}: {told(error)}"
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
    if first(arguments).shape[0] == 1:  # torch.export would take a size of 1 for a constant
        arguments = per_sample(lambda t: torch.cat([t, t]), arguments)
    return arguments


def metadata(run: Opened) -> dict[str, str]:
    """What a reader of the file needs besides the weights; JSON texts where it is no text."""
    info, split = run.built.data.info, run.built.data.split("val")
    facts: dict[str, Any] = {k: info[k] for k in ("class_names", "classes", "shape") if k in info}
    offset, scale = getattr(split, "offset", None), getattr(split, "scale", None)
    if isinstance(offset, Tensor) and isinstance(scale, Tensor):  # for pixels from 0 to 1
        facts["mean"] = (offset / 255).flatten().tolist()
        facts["std"] = (1 / (255 * scale)).flatten().tolist()
    facts |= {"model": run.built.config.model, **run.describe()}
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}


def compare(model: nn.Module, loaded: Forward, arguments: Arguments, name: str) -> float:
    """The largest difference on the batch and on its first sample. Raises `NotExported`."""
    largest = 0.0
    for part in (arguments, per_sample(lambda t: t[:1], arguments)):
        for wanted, got in zip(tensors(model(*part)), tensors(loaded(*part)), strict=True):
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
