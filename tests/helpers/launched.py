"""What the task in snippets/digits/launched.py notes."""

import json
import time
from collections.abc import Callable
from pathlib import Path

TASK = "task._target_=.launched.Launched"


def notes(folder: Path) -> list[dict]:
    """A note per training step: the process of its job, its GPU, the time and the step."""
    path = folder / "notes.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_step(folder: Path, step: int, said: Callable[[], str], jobs: int = 1) -> None:
    """Wait until so many jobs are at a step. said: what to show if they do not come there."""
    deadline = time.monotonic() + 120
    while sum(note["step"] == step for note in notes(folder)) < jobs:
        assert time.monotonic() < deadline, said()
        time.sleep(0.1)
