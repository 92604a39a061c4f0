"""Run folders as people name them, what their files say, and where results go. Without torch."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.stored import flat
from ..errors import UserError, one_line
from ..paths import RUNS, shown
from ..run.folder import Run, is_run, read_metrics


def runs_below(folder: Path) -> list[Path]:
    """Return the folder if it is a run, and all runs below it, oldest first. Raises `UserError`."""
    found = [path.parent for path in sorted(folder.rglob("manifest.json")) if is_run(path.parent)]
    found = [run for run in found if not any(p[0] == "." for p in run.relative_to(folder).parts)]
    if not found:
        raise UserError(f"No run is in {shown(folder)}. Name a run folder, such as runs/NAME/TIME.")
    return found


def one_run(folder: Path) -> Path:
    """Return `folder` if it is a run. Raises `UserError`."""
    found = runs_below(folder)
    if found != [folder]:
        raise UserError(f"{shown(folder)} is not a run. Name one below it: {shown(found[-1])}.")
    return folder


@dataclass(frozen=True)
class Summary:
    """What the files of a run say about it."""

    folder: Path
    config: dict[str, Any]
    """Values by dotted key, unchecked: another version may have written them."""
    status: str
    result: dict[str, Any]
    rows: list[dict[str, Any]]

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
        """Return steps and values of a tag."""
        return [(row["step"], row[tag]) for row in self.rows if tag in row]

    @property
    def last(self) -> float | None:
        return next((value for _, value in reversed(self.curve(self.monitor))), None)

    @property
    def best(self) -> float | None:
        pick = max if self.config.get("monitor_mode") == "max" else min
        return pick((v for _, v in self.curve(self.monitor) if math.isfinite(v)), default=None)

    @property
    def weights(self) -> str:
        """The first 12 digits of the hash of the weights: of the averaged ones if there are any."""
        return str(self.result.get("ema_sha256") or self.result.get("weights_sha256") or "")[:12]


def read_summary(folder: Path) -> Summary:
    """Read a run's files. Raises `UserError`."""
    import yaml

    manifest = Run(folder, None).manifest()
    path = folder / "config.yaml"
    try:
        config = flat(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"{shown(path)} cannot be read: {one_line(error)}. Restore it.") from error
    result = manifest.get("result") or {}
    return Summary(folder, config, manifest["status"], result, read_metrics(folder))


@contextlib.contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Make `folder`; turn an I/O error within the block into a `UserError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        why = error.strerror or error
        raise UserError(
            f"Cannot write to {shown(folder)}: {why}. Choose another folder."
        ) from error
