"""A run's best value, patience, time limit and requests to stop. The loop acts on the answers."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from . import signals
from .config.schema import Config
from .errors import NotFiniteError, UserError


def is_better(value: float, than: float | None, mode: str) -> bool:
    """Return whether `value` is finite, and better than `than`. `mode` is "min" or "max"."""
    if not math.isfinite(value):
        return False
    return than is None or (value > than if mode == "max" else value < than)


def not_finite(what: str, step: int, samples: Sequence[int]) -> NotFiniteError:
    """Return the error for a "loss" or "gradient" that is infinite or NaN in `step` (from 0)."""
    shown = ", ".join(map(str, samples[:16])) + (", …" if len(samples) > 16 else "")
    cure = "Look at these samples, lower lr, or set clip_grad_norm."
    if what == "gradient":
        cure = "The loss is finite. Look for a root, a logarithm or a division at 0, or lower lr."
    return NotFiniteError(
        f"The {what} is not finite at step {step + 1} (samples {shown} of the training set). "
        f"Nothing was saved after it. {cure}"
    )


class Progress:
    """The judgement of validations, and the reasons to end a run early."""

    def __init__(self, config: Config, started: float) -> None:
        """`started`: the time of the command's start, from `time.monotonic()`, in seconds."""
        self.monitor, self.mode = config.monitor, config.monitor_mode
        self.patience = config.early_stopping_patience
        self.max_minutes, self.started = config.max_minutes, started
        self.best: float | None = None
        self.best_saved: float | None = None  # of best.pt; not `best` if that file was lost
        self.last: float | None = None
        self.best_observed: float | None = None
        self.not_better = 0  # observed validations in a row without a better value
        # True once this process has done a step or a validation. Until then `max_minutes` does not
        # count, so that a resume loop always advances.
        self.has_advanced = False

    def judge(self, results: Mapping[str, float]) -> tuple[bool, bool]:
        """Take the values of a validation, by tag. Return two answers: is the monitored value the best
        of the run, and are its weights to be saved as best.pt? Raises `UserError`."""
        if self.monitor not in results:
            known = ", ".join(results)
            raise UserError(f"monitor={self.monitor} is not one of the values {known}.")
        value = results[self.monitor]
        self.last = value if math.isfinite(value) else None
        is_best = is_better(value, self.best, self.mode)
        is_to_save = is_better(value, self.best_saved, self.mode)
        self.best = value if is_best else self.best
        self.best_saved = value if is_to_save else self.best_saved
        return is_best, is_to_save

    def observe(self, value: float) -> None:
        if is_better(value, self.best_observed, self.mode):
            self.best_observed, self.not_better = value, 0
        else:
            self.not_better += 1

    @property
    def out_of_patience(self) -> str | None:
        """Why the run ends before its last step, in words; None if it does not."""
        if self.patience is None or self.not_better <= self.patience:
            return None
        spent = f"validations in a row did not improve {self.monitor}"
        return f"{self.not_better} {spent} (early_stopping_patience={self.patience})"

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
            "observed": self.best_observed,
            "not_better": self.not_better,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.best_saved = state["value"], state["saved"]
        self.last, self.not_better = state["last"], state["not_better"]
        self.best_observed = state.get("observed", self.best)  # until 0.2.0 all were observed
