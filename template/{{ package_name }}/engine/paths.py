"""Where the project lies."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The project's root. It becomes the working directory: relative paths start there."""

CONFIGS = ROOT / "configs"
RUNS = ROOT / "runs"
