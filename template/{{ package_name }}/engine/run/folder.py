"""Run folders: create, lock, find, describe."""

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
        """The folder, relative to the project's root if it lies below it."""
        return shown(self.folder)

    @property
    def resume_hint(self) -> str:
        return f"Go on with: python train.py resume={self.shown}"

    def manifest(self) -> dict[str, Any]:
        """Read `manifest.json`. Raises `UserError` if it is damaged."""
        path = self.folder / "manifest.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return {"status": "unknown", **values}
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} cannot be read: {error}. Restore or remove it.") from error

    def has_checkpoints(self) -> bool:
        return any(self.checkpoints.glob("*.pt"))

    def update_manifest(self, **values: Any) -> None:
        """Set keys of the manifest, in the main process."""
        if is_main():
            write_json(self.folder / "manifest.json", {**self.manifest(), **values})

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()


def create_run(config: Config, manifest: Mapping[str, Any], run_name: str | None) -> Run:
    """Create and lock a run folder: build it under a hidden name, then rename it."""
    parent = RUNS / config.name
    hidden = parent / f".new-{os.getpid()}-{time.monotonic_ns()}"
    try:
        (hidden / "checkpoints").mkdir(parents=True)
        config = dataclasses.replace(config, resume=None)
        (hidden / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
        write_json(hidden / "manifest.json", manifest)
        lock = open(hidden / ".lock", "w")  # noqa: SIM115 - stays open as long as the run
    except OSError as error:
        shutil.rmtree(hidden, ignore_errors=True)
        kind = SaveError if error.errno in NO_SPACE else UserError
        raise kind(f"No run folder can be made in {parent}: {error}.") from error
    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _delete_abandoned(parent)
    stamp = run_name or datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder, number = parent / stamp, 0
    while True:
        try:
            os.rename(hidden, folder)
            return Run(folder, lock)
        except OSError:
            if not folder.exists():
                shutil.rmtree(hidden, ignore_errors=True)
                raise
            number += 1  # another run has this name
            folder = parent / f"{stamp}-{number}"


def _delete_abandoned(parent: Path) -> None:
    """Delete folders that were hidden for an hour: the process that made them was killed."""
    for stray in parent.glob(".new-*"):
        with contextlib.suppress(OSError):  # another process deleted it
            if time.time() - stray.stat().st_mtime > 3600:
                shutil.rmtree(stray)


def lock_run(folder: Path, seconds: float = 10) -> Run:
    """Lock a run. Wait for another process that holds the lock. Raises `UserError`."""
    try:
        file = open(folder / ".lock", "a")  # noqa: SIM115 - stays open as long as the run
    except OSError as error:
        raise UserError(f"The run {folder} cannot be written: {error.strerror}.") from error
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Run(folder, file)
        except OSError:
            if time.monotonic() > deadline:
                raise UserError(
                    f"The run {folder} is in use by another process. Wait for it, or stop it."
                ) from None
            time.sleep(0.1)


def all_runs(name: str) -> list[Path]:
    """Return the run folders of a name, newest first."""

    def started(folder: Path) -> tuple[str, str]:
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            return str(manifest["started"]), folder.name
        except (OSError, ValueError, KeyError, TypeError):  # damaged: it counts as the oldest
            return "", folder.name

    found = [path.parent for path in (RUNS / name).glob("[!.]*/manifest.json")]
    return sorted(found, key=started, reverse=True)


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run. A path that no file system takes holds none."""
    return all(os.path.isfile(folder / name) for name in ("manifest.json", "config.yaml"))


def find_run(config: Config) -> Path | None:
    """Return the run that `resume=` names; None if `auto` finds none. Raises `UserError`."""
    assert config.resume is not None
    if config.resume == "auto":
        return next((run for run in all_runs(config.name) if _is_same(run, config)), None)
    folder = ROOT / os.path.expanduser(config.resume)
    if not is_run(folder):
        newest = all_runs(config.name)
        hint = f", such as {shown(newest[0])}" if newest else ""
        raise UserError(
            f"resume={config.resume} is not a run: {folder} has no config.yaml or no manifest.json. "
            f"Name a run folder{hint}."
        )
    return folder


def _is_same(folder: Path, config: Config) -> bool:
    """Whether a run has the config, apart from keys that a resumed run may change."""
    try:
        stored = read_config(folder)
    except (OSError, UserError):  # a version with other keys made it
        return False
    others = changed_keys(stored, config) - OPERATIONAL - EXTENDING
    return not others and not is_shorter(stored, config)
