"""`metrics.jsonl`: one line per log point and per validation."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..paths import write_whole


class MetricsFile:
    """Appends rows. A resumed run first deletes the rows that it will write again."""

    def __init__(self, folder: Path, done_steps: int, validate_again: bool) -> None:
        def is_kept(row: Mapping[str, Any]) -> bool:
            is_validation = any(key.startswith("val/") for key in row)
            return row["step"] < done_steps + (not (validate_again and is_validation))

        path = folder / "metrics.jsonl"
        write_whole(path, "".join(_line(row) for row in read_metrics(folder) if is_kept(row)))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the run

    def write(self, row: Mapping[str, Any]) -> None:
        self._file.write(_line(row))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the rows of a run's `metrics.jsonl`. Skip a line that a killed process half wrote."""
    path, rows = folder / "metrics.jsonl", []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
    return rows


def refuse_other_groups(folder: Path, names: set[str]) -> None:
    """Raise `UserError` if the newest log point has other parameter groups than `names`.

    Another release may split a model into other groups, for example for `optimizer.layer_decay`.
    """
    for row in reversed(read_metrics(folder)):
        if logged := {tag.removeprefix("lr/") for tag in row if tag.startswith("lr/")}:
            if logged != names:
                raise UserError(
                    f"The run has {len(logged)} parameter groups, but its config now makes other "
                    f"groups ({len(names)}). Resume it with the release that began it."
                )
            return
