"""Sinks for logged values, besides the `metrics.jsonl` that every run writes; one file each.

Each file imports its package, and is imported only where the config names it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ..config.schema import OPERATIONAL
from ..config.stored import flat


def hyperparameters(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """What of a config makes a result, by dotted key: numbers and words; lists as text."""
    kept = flat({key: value for key, value in config.items() if key not in OPERATIONAL})
    return {
        key: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for key, value in kept.items()
        if value not in (None, [], {})
    }


def histogram(values: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The finite values, float64 [N], and how many of them are between which of 65 edges."""
    numbers = values.detach().double().cpu().numpy().ravel()
    numbers = numbers[np.isfinite(numbers)]
    return numbers, *np.histogram(numbers, bins=64)
