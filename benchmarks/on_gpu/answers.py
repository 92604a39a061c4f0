"""Results that are on the disk as soon as they are known, and commands that end in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from ..common import Table


class Answers:
    """Appends rows to `results.jsonl`. Ends the process, and all that it started, after `limit` seconds."""

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.file = folder, folder / "results.jsonl"
        self.ends = time.monotonic() + limit
        self.began = time.monotonic()
        self.running: set[int] = set()
        """Process groups."""
        folder.mkdir(parents=True, exist_ok=True)
        watch = threading.Timer(limit, self._end)
        watch.daemon = True
        watch.start()

    def left(self) -> float:
        return self.ends - time.monotonic()

    def say(self, part: str, **cells: object) -> None:
        """Add a row to the table `part`: its cells by the names of their columns."""
        row = {"seconds": round(time.monotonic() - self.began, 1), "part": part, "cells": cells}
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        shown = "  ".join(f"{column}: {cell}" for column, cell in cells.items())
        print(f"[{row['seconds']:5.1f} s] {part}: {shown}"[:1000], flush=True)

    def command(self, log: str, *arguments: object, limit: float = 150, **options: object) -> tuple[int | None, str]:
        """Run a Python command. Return its exit code, None if it took too long, and what it printed."""
        path = self.folder / "logs" / f"{log}.txt"
        path.parent.mkdir(exist_ok=True)
        with open(path, "a+", encoding="utf-8", errors="replace") as file:
            start = file.tell()
            process = self.start(file, *arguments, **options)
            code = self.wait(process, limit)
            file.seek(start)
            return code, file.read()

    def start(self, out: object, *arguments: object, **options: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, *map(str, arguments)]
        process = subprocess.Popen(  # type: ignore[call-overload]
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, **options
        )
        self.running.add(process.pid)
        return process  # type: ignore[no-any-return]

    def wait(self, process: subprocess.Popen[bytes], limit: float) -> int | None:
        try:
            return process.wait(max(1, min(limit, self.left() - 5)))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None
        finally:
            self.running.discard(process.pid)

    def _end(self) -> None:
        self.say("The end", told="the time is over")
        for group in list(self.running):
            os.killpg(group, signal.SIGKILL)
        os._exit(0)


def tables(file: Path) -> list[Table]:
    """Return the rows of a `results.jsonl` as tables, in the order of their first rows."""
    made: dict[str, Table] = {}
    cells: dict[str, list[dict[str, str]]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        table = made.setdefault(row["part"], Table(row["part"], []))
        table.columns = list(dict.fromkeys([*table.columns, *row["cells"]]))
        cells.setdefault(row["part"], []).append(row["cells"])
    for part, table in made.items():
        texts = ([str(row.get(column, "")) for column in table.columns] for row in cells[part])
        table.rows = [[text.replace("|", "/").replace("\n", " ") for text in row] for row in texts]
    return list(made.values())
