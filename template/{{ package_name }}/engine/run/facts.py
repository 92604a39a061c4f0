"""What a manifest records: command, code, hashes."""

import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ..paths import ROOT
from ..text import logger
from .secrets import without_secrets


def describe_start(overrides: list[str]) -> dict[str, Any]:
    """Return what a manifest says at the start of a run, without the fingerprint and secrets."""
    told = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "overrides": overrides,
        "template": _template_version(),
        "git": _git(),
    }
    told, found = without_secrets(told)
    if found:
        logger.warning(f"manifest.json leaves out {found} texts that look like passwords or keys.")
    return {"status": "running", "started": timestamp(), **told}


def timestamp() -> str:
    """The local time with its zone, as ISO 8601."""
    return datetime.now().astimezone().isoformat()


def fingerprint_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the differences between two fingerprints, each like "torch 2.6.0 → 2.7.0"."""
    found = []
    for key, value in one.items():
        if isinstance(value, Mapping):
            found += fingerprint_differences(value, other.get(key, {}))
        elif value != other.get(key):
            found.append(f"{key} {value} → {other.get(key)}")
    return found


def _template_version() -> str | None:
    """Return the release of the template that the project was rendered or updated from."""
    answers = ROOT / ".copier-answers.yml"
    lines = answers.read_text(encoding="utf-8").splitlines() if answers.is_file() else []
    found = (line.removeprefix("_commit:").strip() for line in lines if line.startswith("_commit:"))
    return next(found, None)


def _git() -> dict[str, Any] | None:
    """Return the commit and the uncommitted changes; None without git or a commit."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.check_output(command, stderr=subprocess.DEVNULL).decode(errors="replace")

    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return {"commit": git("rev-parse", "HEAD").strip(), "diff": git("diff", "HEAD")}
    return None


def weights_sha256(state: Mapping[str, Any]) -> str:
    """Return a hash over a state dict: each key in order, with dtype, shape and bytes."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
