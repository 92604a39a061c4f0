"""What a manifest records: command, code, versions, machine, hashes."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ..machine.distributed import WORLD_SIZE
from ..paths import ROOT

_VERSIONS = ("torch", "torchvision", "numpy", "hydra-core", "tensorboard")


def describe_start(overrides: list[str]) -> dict[str, Any]:
    """What a manifest says of a run at its start, but for machine and data."""
    return {
        "status": "running",
        "started": timestamp(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "overrides": overrides,
        "template": _template_version(),
        "git": _git(),
    }


def timestamp() -> str:
    """The local time with its zone, as ISO 8601."""
    return datetime.now().astimezone().isoformat()


def fingerprint_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In what two fingerprints differ, each as "torch 2.6.0 → 2.7.0"."""
    found = []
    for key, value in one.items():
        if isinstance(value, Mapping):
            found += fingerprint_differences(value, other.get(key, {}))
        elif value != other.get(key):
            found.append(f"{key} {value} → {other.get(key)}")
    return found


def make_fingerprint(
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
