"""Where logged values go besides `metrics.jsonl`: one file per logger.

Each file imports its package. It is imported only if the config names it.
"""

import os
from collections.abc import Mapping
from typing import Any

from ..config.schema import OPERATIONAL
from ..config.stored import flat
from ..paths import to_json

# Both packages read their variable when they are imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


def hyperparameters(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """The config keys that change a result, dotted. Lists become text."""
    kept = flat({key: value for key, value in config.items() if key not in OPERATIONAL})
    return {
        key: value if isinstance(value, bool | int | float | str) else to_json(value)
        for key, value in kept.items()
        if value not in (None, [], {})
    }
