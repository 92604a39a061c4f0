"""Run folders: create, lock, and `metrics.jsonl`: a line per log point and validation."""

import contextlib
import dataclasses
import errno
import fcntl
import itertools
import json
import math
import os
import re
import shutil
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from ..config.schema import Config
from ..config.stored import to_yaml
from ..errors import NO_SPACE, SaveError, UserError
from ..machine.distributed import is_main
from ..paths import RUNS, refuse_links, shown, to_json, write_json, write_whole
from ..text import quoted


class Run:
    """A run folder. The main process of the run holds its lock."""

    def __init__(self, folder: Path, lock: IO[str] | None) -> None:
        self.folder, self.checkpoints = folder, folder / "checkpoints"
        self._lock = lock  # an open file, which keeps the lock until it is closed

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the lock behind when a run is sent to another process."""
        return Run, (self.folder, None)

    @property
    def shown(self) -> str:
        return shown(self.folder)

    @property
    def resume_hint(self) -> str:
        is_plain = re.fullmatch(r"[\w./-]+", self.shown, re.ASCII)  # for the shell and for Hydra
        word = f"resume={self.shown}" if is_plain else f'"resume={quoted(self.shown)}"'
        return f"Go on with: python train.py {word}"

    def manifest(self) -> dict[str, Any]:
        """Read `manifest.json`. Raises `UserError` if it is damaged."""
        from .facts import MANIFEST, misfit  # here: it needs PyYAML, which may not be installed

        path = self.folder / "manifest.json"
        try:
            text = path.read_text(encoding="utf-8")
            values = json.loads(text, parse_constant=lambda nan: None)  # earlier releases wrote NaN
            values = {"status": "unknown", **values}
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{path} cannot be read: {error}. Restore or remove it.") from error
        wrong = misfit(values, MANIFEST)
        if wrong is None and values["status"] == "finished" and not values.get("result"):
            wrong = "result"
        if wrong is not None:
            raise UserError(f"{path} has a wrong value or none at '{wrong}'. Restore or remove it.")
        return values

    def update_manifest(self, **values: Any) -> None:
        if is_main():
            write_json(self.folder / "manifest.json", {**self.manifest(), **values})

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()


def create_run(
    config: Config, manifest: Mapping[str, Any], run_name: str | None, data_sums: str = ""
) -> Run:
    """Create and lock a run folder: build it under a hidden name, then rename it."""
    parent = RUNS / config.name
    hidden = parent / f".new-{os.getpid()}-{time.monotonic_ns()}"
    try:
        (hidden / "checkpoints").mkdir(parents=True)
        text = to_yaml(dataclasses.replace(config, resume=None))
        (hidden / "config.yaml").write_text(text, encoding="utf-8")
        write_json(hidden / "manifest.json", manifest)
        if data_sums:
            write_whole(hidden / "data.sha256", data_sums)
        lock = open(hidden / ".lock", "w")  # noqa: SIM115 - stays open as long as the run
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        stamp = run_name or datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        folder, others = parent / stamp, itertools.count(1)
        while True:
            try:
                return Run(hidden.rename(folder), lock)
            except OSError:
                if not folder.exists():
                    raise
                folder = parent / f"{stamp}-{next(others)}"  # another run has this name
    except OSError as error:
        shutil.rmtree(hidden, ignore_errors=True)
        kind = SaveError if error.errno in (*NO_SPACE, errno.EIO) else UserError
        raise kind(f"No run folder can be made in {shown(parent)}: {error.strerror}.") from error


def lock_run(folder: Path) -> Run:
    """Lock a run. Wait 10 s for another process that holds the lock. Raises `UserError`."""
    try:
        refuse_links(folder)
        file = open(folder / ".lock", "a")  # noqa: SIM115 - stays open as long as the run
        for _ in range(100):
            with contextlib.suppress(BlockingIOError, PermissionError):  # another process holds it
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return Run(folder, file)
            time.sleep(0.1)
    except OSError as error:
        raise UserError(f"The run {folder} cannot be written: {error.strerror}.") from error
    raise UserError(f"The run {folder} is in use by another process. Wait for it, or stop it.")


def open_metrics(folder: Path, done_steps: int, validates_again: bool) -> IO[str]:
    """Open `metrics.jsonl` to append lines. Delete the rows that a resumed run will write again."""

    def is_kept(row: Mapping[str, Any]) -> bool:
        is_validation = any(key.startswith("val/") for key in row)
        return row["step"] < done_steps + (not (validates_again and is_validation))

    path = folder / "metrics.jsonl"
    write_whole(path, "".join(to_json(row) + "\n" for row in read_metrics(folder) if is_kept(row)))
    return open(path, "a", encoding="utf-8", buffering=1)  # each line reaches the file at once


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the rows of `metrics.jsonl`. Skip a line that a kill half wrote. A null is NaN.

    Raises `UserError` for a value that is not a number.
    """
    path, rows = folder / "metrics.jsonl", []
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    except OSError as error:
        raise UserError(f"{shown(path)} cannot be read: {error.strerror}.") from error
    for number, line in enumerate(text.splitlines(), 1):
        with contextlib.suppress(ValueError):
            row = json.loads(line, parse_constant=lambda nan: None)  # earlier releases wrote NaN
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                row = {key: math.nan if v is None else v for key, v in row.items()}
                for key, value in row.items():
                    if not isinstance(value, int | float):
                        where, odd = f"{shown(path)}, line {number}", to_json(value)[:40]
                        raise UserError(f"{where}: {key} is {odd}, not a number. Delete the line.")
                rows.append(row)
    return rows


def refuse_other_groups(folder: Path, names: set[str]) -> None:
    """Raise `UserError` if the newest log point has other parameter groups than `names`."""
    rows = ({tag for tag in row if tag.startswith("lr/")} for row in read_metrics(folder)[::-1])
    logged = next(filter(None, rows), None)
    if logged is not None and logged != {f"lr/{name}" for name in names}:
        raise UserError(
            "The config now makes other parameter groups than when the run began. Resume it with the "
            "release that began it."
        )
