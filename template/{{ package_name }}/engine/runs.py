"""Run folders: create, lock, find, describe."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from .config import EXTENDING, OPERATIONAL, Config, from_dict
from .distributed import WORLD_SIZE, is_main
from .errors import NO_SPACE, SaveError, UserError
from .paths import ROOT, RUNS, shown, write_whole

_STAMP = "%Y-%m-%d_%H-%M-%S"
_VERSIONS = ("torch", "torchvision", "numpy", "hydra-core", "tensorboard")


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


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file that is whole or absent."""
    write_whole(path, json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's `metrics.jsonl`, without what a killed process left half-written."""
    path, rows = folder / "metrics.jsonl", []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
    return rows


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping's values by dotted key; an empty mapping is a value."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values


def to_yaml(config: Config) -> str:
    """The whole config as YAML text."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))


def read_config(folder: Path) -> Config:
    """The config a run was made with; keys that came later have their defaults.

    Raises `UserError`.
    """
    path = folder / "config.yaml"
    try:
        return parse_config(path.read_text(encoding="utf-8"), shown(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{shown(path)} cannot be read: {error}.") from error


def parse_config(text: str, source: str) -> Config:
    """The config that `to_yaml` made `text` of. Raises `UserError`, which names `source`."""
    from omegaconf import OmegaConf

    try:
        values = OmegaConf.to_container(OmegaConf.create(text))
    except Exception as error:  # whatever broken text makes the YAML reader raise
        raise UserError(f"{source} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict) or not values:
        raise UserError(f"{source} holds no config.")
    try:
        return from_dict({str(key): value for key, value in values.items()})
    except (TypeError, AttributeError) as error:
        raise UserError(f"{source} holds a value of a wrong type: {error}.") from error


def create(config: Config, manifest: Mapping[str, Any], run_name: str | None) -> Run:
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


def lock(folder: Path, seconds: float = 10) -> Run:
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


def find(config: Config) -> Path | None:
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
        if not changes(stored, config) - OPERATIONAL - EXTENDING and not _shortened(stored, config):
            return folder
    return None


def changes(stored: Config, new: Config) -> set[str]:
    """The top-level keys in which two configs differ."""
    return {key for key in vars(stored) if getattr(stored, key) != getattr(new, key)}


def _shortened(stored: Config, new: Config) -> bool:
    return new.epochs < stored.epochs or (new.max_steps or 1e18) < (stored.max_steps or 1e18)


def merge(folder: Path, stored: Config, new: Config, overrides: list[str]) -> Config:
    """The config a resumed run goes on with: the stored one, plus overrides that may change."""
    keys = {o.lstrip("+~").split("=")[0].split(".")[0].split("@")[0] for o in overrides}
    if keys - vars(stored).keys():  # an experiment sets keys of its own: all that differ count
        keys |= changes(stored, new)
    if new.resume == "auto":  # equal but for these keys
        keys |= OPERATIONAL | EXTENDING
    for key in sorted(keys & changes(stored, new)):
        if key in OPERATIONAL:
            continue
        if key not in EXTENDING:
            raise UserError(
                f"{key} cannot be changed in a resumed run: {folder.name} was made with "
                f"{key}={getattr(stored, key)}. Start a new run, or leave {key} out."
            )
        if _shortened(stored, dataclasses.replace(stored, **{key: getattr(new, key)})):
            raise UserError(
                f"{key}={getattr(new, key)} is shorter than the run that is resumed, which has "
                f"{key}={getattr(stored, key)}; a resumed run can only be made longer."
            )
    taken = {key: getattr(new, key) for key in keys & (OPERATIONAL | EXTENDING)}
    return dataclasses.replace(stored, **taken)


def is_longer(folder: Path, config: Config) -> bool:
    """Whether `config` trains for longer than the run's stored config."""
    return bool(changes(read_config(folder), config) & EXTENDING)


def describe(overrides: list[str]) -> dict[str, Any]:
    """What a manifest says of a run at its start, but for machine and data."""
    return {
        "status": "running",
        "started": now(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "overrides": overrides,
        "template": _template_version(),
        "git": _git(),
    }


def now() -> str:
    """The local time with its zone, as ISO 8601."""
    return datetime.now().astimezone().isoformat()


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In what two fingerprints differ, each as "torch 2.6.0 → 2.7.0"."""
    found = []
    for key, value in one.items():
        if isinstance(value, Mapping):
            found += differences(value, other.get(key, {}))
        elif value != other.get(key):
            found.append(f"{key} {value} → {other.get(key)}")
    return found


def fingerprint(
    device: str, libraries: Mapping[str, str], threads: int, data: str
) -> dict[str, Any]:
    """What the bits of a result depend on besides the config."""
    versions = {"python": platform.python_version(), **libraries}
    for package in _VERSIONS:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "versions": versions,
        "machine": platform.machine(),
        "device": device,
        "threads": threads,
        "world_size": WORLD_SIZE,
        "data": data,
    }


def _template_version() -> str | None:
    answers = ROOT / ".copier-answers.yml"
    if not answers.is_file():
        return None
    for line in answers.read_text(encoding="utf-8").splitlines():
        if line.startswith("_commit:"):
            return line.split(":", 1)[1].strip()
    return None


def _git() -> dict[str, Any] | None:
    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True)
        except OSError:  # no git on this machine
            return None
        return done.stdout.decode(errors="replace") if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit.strip(), "diff": git("diff", "HEAD") or ""}


def weights_sha256(state: Mapping[str, Any]) -> str:
    """A hash over a state dict: of each key in order its name, dtype, shape and bytes."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
