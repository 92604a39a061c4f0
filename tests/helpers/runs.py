"""Read the run folders that a command left, and compare them."""

import json
from pathlib import Path

BASE = ("task._target_=.stopping.Stopping", "epochs=2", "logger=none", "log.every=6")
"""A short run of the task in snippets/digits/stopping.py, which stops it where the environment says."""


def the_run(workspace: Path, name: str = "default") -> Path:
    """The only run of this name."""
    (folder,) = [p for p in (workspace / "runs" / name).iterdir() if not p.name.startswith(".")]
    return folder


def result(folder: Path) -> dict:
    """The result of a finished run."""
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    return manifest["result"]


def rows(folder: Path) -> list[dict]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def logged(folder: Path) -> list[dict]:
    """The rows without times: equal in equal runs."""
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows(folder)]


def assert_stopped_as_whole(workspace: Path) -> None:
    """The run called "stopped" ended as the run called "whole" did."""
    whole, stopped = the_run(workspace, "whole"), the_run(workspace, "stopped")
    assert result(stopped) == result(whole)
    assert logged(stopped) == logged(whole)
