"""A packed run of format 1, written by hand as docs/run-files.md describes it, and changed as a test wants it."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

ROWS = [
    {"step": 2, "epoch": 1, "train/loss": 0.75, "time/step": 0.125},
    {"step": 2, "epoch": 1, "val/acc": 0.5},
    {"step": 4, "epoch": 2, "train/loss": 0.25, "time/step": 0.25},
    {"step": 4, "epoch": 2, "val/acc": 0.25},
]
VALUES = (
    '{"epoch": 1, "step": 2, "train/loss": 0.75}\n',
    '{"epoch": 1, "step": 2, "val/acc": 0.5}\n',
    '{"epoch": 2, "step": 4, "train/loss": 0.25}\n',
    '{"epoch": 2, "step": 4, "val/acc": 0.25}\n',
)
"""The rows as `values_sha256` takes them: sorted, without times."""
CLAIMS = {"steps": 4, "monitor": "val/acc", "last": 0.25, "best": 0.5, "weights_sha256": "b" * 64}
CONFIG = "name: small\nseed: 0\nmonitor: val/acc\nmonitor_mode: max\ndata:\n  _target_: digits.data.rings.Rings\n"
SOURCE = {"train.py": "print('trained')\n", "digits/__main__.py": "print('repeated')\n"}
DATA = {"_target_": "digits.data.rings.Rings", "fingerprint": "f", "files": None, "needs": None, "place": None}


def sha256(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def parts() -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
    """Return the files, manifest.json and run.json of a run that agrees with itself."""
    checkpoint = {"ema_sha256": None, "best": False, "file": None}
    checkpoints = [
        {**checkpoint, "step": 2, "weights_sha256": "a" * 64, "values_sha256": sha256("".join(VALUES[:2]))},
        {**checkpoint, "step": 4, "weights_sha256": "b" * 64, "values_sha256": sha256("".join(VALUES))},
    ]
    manifest = {
        "status": "finished",
        "command": ["train.py", "lr=0.1"],
        "template": "0.3.0",
        "git": {"commit": "c" * 40, "diff": "+1", "remote": "https://example.org/small.git", "untracked": {}},
        "environment": {"python": "3.11.9", "packages": {"torch": "2.15.0+cpu", "numpy": "2.0"}, "sources": {}},
        "source": {path: sha256(text) for path, text in SOURCE.items()},
        "fingerprint": {"data": "f", "versions": {"python": "3.11.9"}},
        "result": CLAIMS,
    }
    run = {
        "format": 1,
        "name": "small/2026-11-29_01-02-03",
        "package": "digits",
        "template": "0.3.0",
        "python": "3.11.9",
        "command": ["train.py", "lr=0.1"],
        "claims": dict(CLAIMS),
        "checkpoints": checkpoints,
        "seeds": [{"seed": 0, "last": 0.25, "best": 0.5}],
        "data": {**DATA, "packed": False},
        "left_out": {},
        "unavailable": [],
    }
    files = {
        "README.txt": "A run.\n",
        "config.yaml": CONFIG,
        "metrics.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
        "requirements.txt": "numpy==2.0\ntorch==2.15.0+cpu\n",
        **{f"source/{path}": text for path, text in SOURCE.items()},
    }
    return files, manifest, run


def write(path: Path, files: dict[str, str], manifest: Any, run: Any) -> Path:
    """Write the archive, with the hashes of its files in run.json unless `run` has them."""
    files = {**files, "manifest.json": json.dumps(manifest)}
    if isinstance(run, dict):
        run = {"files": {name: sha256(text) for name, text in files.items()}, **run}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {**files, "run.json": json.dumps(run)}.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return path


def repacked(path: Path, new: Path, change: Any) -> Path:
    """Write a real packed run anew: `change(files)` changes its files, run.json gets their hashes."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    run = json.loads(files.pop("run.json"))
    run["files"] = {name: sha256(content) for name, content in files.items()}
    with zipfile.ZipFile(new, "w") as archive:
        for name, content in {**files, "run.json": json.dumps(run).encode()}.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return new
