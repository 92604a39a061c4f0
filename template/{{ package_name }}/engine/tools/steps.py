"""Steps of training outside of a run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ..build.parts import Parts
from ..loop import Loop


def unrecorded_loop(parts: Parts) -> Loop:
    """A loop whose steps are those of training, but which has no folder and reports nothing."""
    no_run: Any = SimpleNamespace(checkpoints=None)
    loop = Loop(parts, no_run, started=0.0)
    return loop
