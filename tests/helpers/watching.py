"""Runs of the snippet digits/watched.py, which notes its batches: their options, and what of them must be equal."""

from pathlib import Path

import torch

from helpers import snippets
from helpers.runs import logged, result

TASK = ("task._target_=.watched.Watched", "logger=none")
# 18 steps in three epochs of whatever data, with a log point and a save within each epoch.
SHORT = ("epochs=3", "batch_size=16", "limit_train_batches=6", "limit_val_batches=2", "log.every=5", "log.curves=false")
DATA = ("data=synthetic", "data.size=100", "data.shape=[1,8,8]")
MODEL = ("model=mlp", "model.hidden=[8]", "model.dropout=0.2")
KEPT = ("save_every_steps=4",)
BASE = (*TASK, *SHORT, *DATA, *MODEL, *KEPT)
STOPS = {"SIGTERM": 75, "SIGINT": 75, "SIGUSR1": 75, "SIGKILL": 137}


def batches(workspace: Path, name: str, micro_batches: int = 0) -> dict[int, list[str]]:
    """The digests of the batches of each step. If a step was done twice, those of the last time.

    A new run checks batches before the first step, as step 0. So a digest counts once in a step, or only the last
    `micro_batches` of a step count.
    """
    seen: dict[int, tuple[str, list[str]]] = {}
    for line in (workspace / f"{name}.batches").read_text().splitlines():
        process, step, digest = line.split()
        if seen.get(int(step), ("", []))[0] != process:
            seen[int(step)] = (process, [])
        seen[int(step)][1].append(digest)
    return {
        step: digests[-micro_batches:] if micro_batches else list(dict.fromkeys(digests))
        for step, (_, digests) in seen.items()
    }


def checkpoints(folder: Path) -> dict[str, dict]:
    """The newest and the best checkpoint without their config, whose operational keys may differ."""
    newest = max((folder / "checkpoints").glob("step-*.pt"))
    found = {}
    for path in (newest, folder / "checkpoints/best.pt"):
        state = torch.load(path, weights_only=True)
        found[path.name] = {key: value for key, value in state.items() if key != "config"}
    return found


def difference(a: object, b: object, place: str = "") -> str | None:
    """The first place where two states differ in a bit. None if they are equal."""
    if type(a) is not type(b):
        return f"{place}: {a!r} and {b!r}"
    if isinstance(a, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
        return None if same else f"{place}: {a} and {b}"
    if isinstance(a, dict):
        if list(a) != list(b):
            return f"{place}: keys {list(a)} and {list(b)}"
        return next((d for key in a if (d := difference(a[key], b[key], f"{place}/{key}"))), None)
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return f"{place}: {len(a)} and {len(b)} items"
        pairs = zip(a, b, strict=True)
        return next((d for n, (x, y) in enumerate(pairs) if (d := difference(x, y, f"{place}/{n}"))), None)
    return None if a == b else f"{place}: {a!r} and {b!r}"


def assert_equal(whole: Path, other: Path) -> None:
    """Two run folders hold the same run."""
    assert result(other) == result(whole)
    assert logged(other) == logged(whole)
    assert difference(checkpoints(whole), checkpoints(other)) is None
    left = [path.name for path in (other / "checkpoints").iterdir() if path.name.startswith(".")]
    assert left == [], "a half-written file is left"


def add_watched_data(workspace: Path) -> None:
    """Add `data=watched`. It notes each sample in the file READS, and sends SIGNAL at the READth sample of a worker."""
    snippets.add(workspace, "digits/data/watched.py")
    (workspace / "configs/data/watched.yaml").write_text("_target_: .data.watched.WatchedData\n")
