"""`predict RUN PATH…`: what a run's model says of files, as CSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch

from .. import rng
from ..api import Context
from ..batches.loader import Loader
from ..batches.plan import Plan
from ..build.target import told
from ..errors import UserError, own_words
from ..machine.device import autocast, to_device
from ..paths import files_below, shown
from ..rng import Domain
from .folders import writing_to
from .open_run import Opened


def predict(run: Opened, paths: Sequence[str], batch_size: int | None, out: Path | None) -> None:
    """Write one row per file to `out` (.csv or .jsonl), or as CSV to stdout. Raises `UserError`."""
    rows = predictions(run, find_files(paths, run.built.data.endings), batch_size)
    if out is None:
        if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may be any bytes
            sys.stdout.reconfigure(errors="surrogateescape")
        write_csv(rows, sys.stdout)
        return
    temporary = out.with_name(f".{out.name}.tmp")
    with writing_to(out.parent):
        try:
            with open(
                temporary, "w", encoding="utf-8", errors="surrogateescape", newline=""
            ) as file:
                (write_jsonl if out.suffix == ".jsonl" else write_csv)(rows, file)
            os.replace(temporary, out)
        finally:
            temporary.unlink(missing_ok=True)
    print(f"Predictions: {shown(out)}", flush=True)


def find_files(paths: Sequence[str], endings: tuple[str, ...]) -> list[str]:
    """The files named, and of folders all files below them with one of `endings`, in order."""
    found: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            below = files_below(path, endings)
            if not below:
                raise UserError(f"No file below {path} ends in {', '.join(endings)}.")
            found += below
        else:
            found.append(path)
    return found


@torch.no_grad()
def predictions(
    run: Opened, files: Sequence[str], batch_size: int | None = None
) -> Iterator[dict[str, Any]]:
    """One row per sample, in their order: its file's path and what the task predicts."""
    built = run.built
    config, device = built.config, built.device
    try:
        dataset = built.data.files(files)
    except (OSError, ValueError) as error:
        raise UserError(f"The files cannot be read: {told(error)}") from error
    names = getattr(dataset, "names", None) or files
    size = batch_size or config.batch_size
    plan = Plan(len(names), size, config.seed, shuffle=False, drop_last=False)
    workers = 0 if plan.steps == 1 else config.workers  # one batch is read sooner than they start
    loader = Loader(dataset, plan, built.data.collate, Domain.PREDICTION, workers, device)
    ctx = Context(run.step, run.epoch, training=False, device=device)
    key = rng.make_key(config.seed, Domain.PREDICTION)
    done = 0
    try:
        for batch in loader.read(0, plan.steps):
            rng.seed_all(rng.fold_in(key, done))
            with autocast(built.precision, device):
                said = built.task.predict_step(
                    run.model, to_device(batch, device, config.channels_last), ctx
                )
            for row in said:
                yield {"path": names[done], **row}
                done += 1
    except UserError as error:  # perhaps a worker's
        raise UserError(own_words(error)) from error


def write_csv(rows: Iterable[Mapping[str, Any]], file: TextIO) -> None:
    """Columns as in the first row; a nested dict's keys are columns too."""
    writer = None
    for row in rows:
        flat = flatten(row)
        if writer is None:
            writer = csv.DictWriter(file, list(flat), lineterminator="\n")
            writer.writeheader()
        writer.writerow(flat)
    file.flush()


def flatten(row: Mapping[str, Any]) -> dict[str, Any]:
    """{"label": "a", "p": {"a": 1.0}} as {"label": "a", "a": 1.0}; "p.a" where "a" is taken."""
    flat = {key: value for key, value in row.items() if not isinstance(value, Mapping)}
    for key, nested in row.items():
        if isinstance(nested, Mapping):
            for name, value in nested.items():
                flat[f"{key}.{name}" if name in flat else name] = value
    return flat


def write_jsonl(rows: Iterable[Mapping[str, Any]], file: TextIO) -> None:
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
