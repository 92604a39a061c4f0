"""What the files of a run say of it. Without torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.stored import flat
from ..errors import UserError
from ..paths import RUNS, shown
from ..run.metrics import read_metrics


@dataclass(frozen=True)
class Summary:
    """What a run's files say of it."""

    folder: Path
    config: dict[str, Any]
    """By dotted key, as the config file has it: also one of another version."""
    status: str
    rows: list[dict[str, Any]]
    result: dict[str, Any]

    @property
    def monitor(self) -> str:
        return str(self.config.get("monitor"))

    @property
    def shown(self) -> str:
        return shown(self.folder, RUNS)

    @property
    def steps(self) -> int:
        return max((row["step"] for row in self.rows), default=0)

    def curve(self, tag: str) -> list[tuple[int, float]]:
        return [
            (row["step"], row[tag]) for row in self.rows if isinstance(row.get(tag), int | float)
        ]

    @property
    def last(self) -> float | None:
        values = self.curve(self.monitor)
        return values[-1][1] if values else None

    @property
    def best(self) -> float | None:
        pick = max if self.config.get("monitor_mode") == "max" else min
        values = [v for _, v in self.curve(self.monitor) if math.isfinite(v)]
        return pick(values, default=None)

    @property
    def weights(self) -> str:
        """The start of the hash of the weights that count: averaged ones where there are any."""
        return str(self.result.get("ema_sha256") or self.result.get("weights_sha256") or "")[:12]


def read(folder: Path) -> Summary:
    """A run from its files. Raises `UserError`."""
    import yaml

    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        status, result = str(manifest["status"]), dict(manifest.get("result") or {})
        config = flat(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise UserError(
            f"The files of the run {shown(folder)} cannot be read: {error!r}."
        ) from error
    return Summary(folder, config, status, read_metrics(folder), result)
