"""`predict RUN PATH…`: what a run's model predicts for files, as CSV or JSON lines."""

import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from PIL import Image

from ..api import Context
from ..batches.loader import Loader
from ..batches.plan import Plan
from ..build.target import describe_error
from ..errors import UserError
from ..machine.device import to_device
from ..paths import files_below, replacing, shown, to_json
from ..rng import Domain
from ..run.find import is_run
from ..text import printable, tell
from .folders import writing_to
from .open_run import Opened

_FORMULA = ("=", "+", "-", "@", "\t")
"""A spreadsheet runs a text that begins so. An apostrophe in front keeps it a text."""


def predict_files(run: Opened, paths: Sequence[str], size: int | None, out: Path | None) -> None:
    """Write one row per file to `out` (.csv or .jsonl), or as CSV to stdout. Raises `UserError`."""
    files, endings = list[str](), run.built.data.endings
    for path in paths:
        if is_run(Path(path)):
            raise UserError(f"{path} is a second run. Name one run, then files or folders of them.")
        found = files_below(path, endings) if os.path.isdir(path) else [path]
        if not found:
            raise UserError(f"No file below {path} ends in {', '.join(endings)}. Name other paths.")
        files += found
    rows = with_pictures(predicted_rows(run, files, size), out and out.with_suffix(""))
    if out is None:
        if isinstance(sys.stdout, io.TextIOWrapper):  # file names may be any bytes
            sys.stdout.reconfigure(errors="surrogateescape")
        write_csv(rows, sys.stdout)
        return
    with (
        writing_to(out.parent),
        replacing(out) as partial,
        open(partial, "x", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        if out.suffix == ".jsonl":
            file.writelines(to_json(row) + "\n" for row in rows)
        else:
            write_csv(rows, file)
    tell(f"Predictions: {shown(out)}")


@torch.no_grad()
def predicted_rows(run: Opened, files: Sequence[str], size: int | None) -> Iterator[dict[str, Any]]:
    """Yield each sample's path and predictions, in order. size: of a batch; None: the config's."""
    built = run.built
    config, device = built.config, built.device
    try:
        dataset = built.data.files(files)
    except (OSError, ValueError) as error:
        raise UserError(f"The files cannot be read: {describe_error(error)}") from error
    names, samples = getattr(dataset, "names", None) or files, len(dataset)  # type: ignore[arg-type]
    if len(names) != samples:
        raise UserError(
            f"{type(dataset).__name__} has {samples} samples, but {len(names)} `names` or files. Its "
            "`names` must hold one text for each sample (see Data.files in engine/api.py)."
        )
    size = size or config.batch_size
    plan = Plan(len(names), size, config.seed, shuffle=False, drop_last=False)
    workers = 0 if plan.steps == 1 else config.workers  # workers start slower than a batch is read
    options = workers, device, config.is_nchw
    loader = Loader(dataset, plan, built.data.collate, Domain.PREDICTION, *options)
    ctx = Context(run.step, run.epoch, training=False, device=device)
    done = 0
    for batch in loader.read(0, plan.steps):
        for row in run.predict_batch(to_device(batch, device, config.channels_last), ctx, done):
            yield {"path": names[done], **row}
            done += 1


def with_pictures(
    rows: Iterable[Mapping[str, Any]], folder: Path | None
) -> Iterator[dict[str, Any]]:
    """Write tensors [H, W] in rows as PNG files, and put their paths there. No folder: drop them."""
    names = Counter[str]()
    for row in rows:
        plain: dict[str, Any] = {}
        for key, value in row.items():
            if not isinstance(value, torch.Tensor):
                plain[key] = value
            elif folder is not None:
                name = f"{Path(row['path']).stem}_{key}"
                names[name] += 1
                path = folder / f"{name}{f'-{names[name]}' if names[name] > 1 else ''}.png"
                kind = np.uint8 if value.max() < 256 else np.uint16
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(value.cpu().numpy().astype(kind)).save(path)
                plain[key] = str(path)
        yield plain


def write_csv(rows: Iterable[Mapping[str, Any]], file: TextIO) -> None:
    """Write a table with the columns of the first row. On a terminal, escape control characters."""

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        value = value.replace("\r", "\\r")  # it would begin a row
        text = f"'{value}" if value[:1] in _FORMULA else value
        return printable(text) if file.isatty() else text

    writer, columns = csv.writer(file, lineterminator="\n"), list[str]()
    for row in map(table_cells, rows):
        if not columns:
            columns = list(row)
            writer.writerow(map(cell, columns))
        writer.writerow(cell(row[column]) for column in columns)
    file.flush()


def table_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Turn {"label": "a", "p": {"a": 1.0}} into {"label": "a", "a": 1.0}; "p.a" if "a" is taken."""
    cells = {key: value for key, value in row.items() if not isinstance(value, Mapping)}
    for key, nested in row.items():
        if isinstance(nested, Mapping):
            for name, value in nested.items():
                cells[f"{key}.{name}" if name in cells else name] = value
    return cells
