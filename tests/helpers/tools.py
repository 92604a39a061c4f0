"""Finished runs for the tests of tools, and what the tools wrote."""

import json
from pathlib import Path

SMALL = ("logger=none", "log.level=error", "epochs=2", "workers=0")
MLP = ("model=mlp", "model.hidden=[32]")


def runs(digits: Path, name: str) -> list[Path]:
    return sorted(p for p in (digits / "runs" / name).iterdir() if not p.name.startswith("."))


def logged(run: Path) -> dict:
    """What the last validation logged."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "val/loss" in row][-1]


def result(folder: Path, split: str = "val") -> dict:
    """What `evaluate` wrote."""
    return json.loads((folder / f"evaluate-{split}.json").read_text())
