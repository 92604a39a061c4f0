"""Run folders: create, lock, find, describe."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from ..config.schema import EXTENDING, OPERATIONAL, Config
from ..config.stored import changed_keys, is_shorter, read_config, to_yaml
from ..errors import NO_SPACE, SaveError, UserError
from ..machine.distributed import is_main
from ..paths import ROOT, RUNS, shown, write_json

_STAMP = "%Y-%m-%d_%H-%M-%S"


class Run:
    """A run folder that this process holds the lock of."""

    def __init__(self, folder: Path, lock: IO[str] | None) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self._lock = lock  # an open file keeps the lock until the process ends or `release`

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent to another process of the run: without the lock, which stays with the first."""
        return Run, (self.folder, None)

    @property
    def shown(self) -> str:
        """The folder as a person would type it from the project's root."""
        return shown(self.folder)

    @property
    def resume_hint(self) -> str:
        return f"Go on with: python train.py resume={self.shown}"

    def manifest(self) -> dict[str, Any]:
        """What `manifest.json` holds. Raises `UserError` where somebody damaged it."""
        path = self.folder / "manifest.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return {"status": "unknown", **values}
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} cannot be read ({error}); restore or remove it.") from error

    def has_checkpoints(self) -> bool:
        return any(self.checkpoints.glob("*.pt"))

    def update_manifest(self, **values: Any) -> None:
        """Set keys of the manifest; only the first process of a run does."""
        if not is_main():
            return
        write_json(self.folder / "manifest.json", {**self.manifest(), **values})

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()


def create_run(config: Config, manifest: Mapping[str, Any], run_name: str | None) -> Run:
    """A new run folder, built under a hidden name and renamed when whole, and locked."""
    config = dataclasses.replace(config, resume=None)
    parent = RUNS / config.name
    stamp = run_name or datetime.now().strftime(_STAMP)
    hidden = parent / f".new-{os.getpid()}-{time.monotonic_ns()}"
    try:
        (hidden / "checkpoints").mkdir(parents=True)
    except OSError as error:
        kind = SaveError if error.errno in NO_SPACE else UserError
        raise kind(f"No run folder can be made in {parent}: {error}.") from error
    try:
        (hidden / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
        write_json(hidden / "manifest.json", manifest)
        lock = open(hidden / ".lock", "w")  # noqa: SIM115 - stays open as long as the run
    except OSError as error:
        shutil.rmtree(hidden, ignore_errors=True)
        raise SaveError(f"The run folder cannot be written in {parent}: {error}.") from error
    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _sweep_new(parent)
    number = 0
    while True:
        folder = parent / (stamp if number == 0 else f"{stamp}-{number}")
        try:
            os.rename(hidden, folder)
            return Run(folder, lock)
        except OSError:
            if not folder.exists():
                shutil.rmtree(hidden, ignore_errors=True)
                raise
            number += 1


def _sweep_new(parent: Path) -> None:
    """Delete what processes killed while they made a run folder left, an hour ago or more."""
    for stray in parent.glob(".new-*"):
        with contextlib.suppress(OSError):  # somebody else deleted it
            if time.time() - stray.stat().st_mtime > 3600:
                shutil.rmtree(stray)


def lock_run(folder: Path, seconds: float = 10) -> Run:
    """Take a run; waits for the process that holds it. Raises `UserError`."""
    try:
        file = open(folder / ".lock", "a")  # noqa: SIM115 - stays open as long as the run
    except OSError as error:
        raise UserError(f"The run {folder} cannot be written to: {error.strerror}.") from error
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Run(folder, file)
        except OSError:
            if time.monotonic() > deadline:
                raise UserError(
                    f"The run {folder} is in use by another process; wait for it or stop it."
                ) from None
            time.sleep(0.1)


def all_runs(name: str) -> list[Path]:
    """The run folders of a name, newest first."""
    parent = RUNS / name
    if not parent.is_dir():
        return []
    found = [p for p in parent.iterdir() if (p / "manifest.json").is_file() and p.name[0] != "."]
    return sorted(found, key=lambda p: (_started(p), p.name), reverse=True)


def _started(folder: Path) -> str:
    try:
        return str(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["started"])
    except (OSError, ValueError, KeyError, TypeError):  # somebody edited it: the oldest
        return ""


def find_run(config: Config) -> Path | None:
    """The run that `resume=` names, or None where `auto` has none to go on with."""
    assert config.resume is not None
    if config.resume != "auto":
        folder = Path(os.path.expanduser(config.resume))
        folder = folder if folder.is_absolute() else ROOT / folder
        if not all(os.path.isfile(folder / name) for name in ("manifest.json", "config.yaml")):
            newest = all_runs(config.name)
            hint = f", such as {shown(newest[0])}" if newest else ""
            raise UserError(
                f"resume={config.resume} is no run: {folder} holds no config.yaml and "
                f"manifest.json; name a run folder{hint}."
            )
        return folder
    for folder in all_runs(config.name):
        try:
            stored = read_config(folder)
        except (OSError, UserError):  # made by a version with other keys
            continue
        if not changed_keys(stored, config) - OPERATIONAL - EXTENDING and not is_shorter(
            stored, config
        ):
            return folder
    return None
