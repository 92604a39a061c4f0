"""How far a run has come: its best value, its patience, its time limit, requests to stop.

This file answers questions. The loop acts on the answers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from . import signals
from .config.schema import Config


def is_better(value: float, than: float | None, mode: str) -> bool:
    """Return whether `value` is better than `than`. `mode` is "min" or "max".

    A value that is not finite is never better. Each finite value is better than None.
    """
    if not math.isfinite(value):
        return False
    return than is None or (value > than if mode == "max" else value < than)


class Progress:
    """The judgement of validations, and the reasons to end a run early."""

    def __init__(self, config: Config, started: float) -> None:
        """`started`: the time of the command's start, from `time.monotonic()`, in seconds."""
        self.mode, self.patience = config.monitor_mode, config.early_stopping_patience
        self.max_minutes, self.started = config.max_minutes, started
        self.best: float | None = None
        self.best_saved: float | None = None
        """The value of the weights in best.pt. It differs from `best` if that file was lost."""
        self.last: float | None = None
        self.not_better = 0
        """Validations in a row without a better value."""
        self.has_advanced = False
        """True once this process has done a step or a validation. Until then `max_minutes` does not
        count, so that a resume loop always advances."""

    def judge(self, value: float) -> bool:
        """Take the monitored value of a validation. Return whether it is the best of the run."""
        self.last = value
        is_best = is_better(value, self.best, self.mode)
        self.not_better = 0 if is_best else self.not_better + 1
        if is_best:
            self.best = value
        return is_best

    def is_out_of_patience(self) -> bool:
        return self.patience is not None and self.not_better > self.patience

    def reason_to_stop(self) -> str | None:
        """Return the signal or the time limit that asks this process to stop, or None."""
        minutes = self.max_minutes if self.has_advanced else None
        if minutes is not None and time.monotonic() - self.started > 60 * minutes:
            return signals.requested() or f"max_minutes={minutes:g}"
        return signals.requested()

    def state_dict(self) -> dict[str, Any]:
        return {
            "value": self.best,
            "saved": self.best_saved,
            "last": self.last,
            "not_better": self.not_better,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.best_saved = state["value"], state["saved"]
        self.last, self.not_better = state["last"], state["not_better"]
