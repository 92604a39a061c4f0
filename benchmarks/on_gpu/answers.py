"""Results that are on the disk as soon as they are known, and commands that end in time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from ..common import Table


class Answers:
    """Appends rows to `results.jsonl`. Ends the process, and all that it started, `limit` seconds after `began`.

    The folder gets two files alone: `results.jsonl`, and at the end `logs.zip` with what the commands printed.
    """

    def __init__(self, folder: Path, limit: float, began: float | None = None) -> None:
        """began: a time of `time.monotonic`, now by default."""
        self.folder, self.file = folder, folder / "results.jsonl"
        self.began = time.monotonic() if began is None else began
        self.ends = self.began + limit
        self.running: set[int] = set()
        """Process groups."""
        self.writing = threading.RLock()
        folder.mkdir(parents=True, exist_ok=True)
        self.work = Path(tempfile.mkdtemp(prefix="ostinato-gpu-"))
        """Everything besides the results. It is deleted at the end."""
        tempfile.tempdir = str(self.work)
        self.logs = self.work / "logs"
        self.logs.mkdir()
        watch = threading.Timer(max(0, self.left()), self.end, ["the time is over"])
        watch.daemon = True
        watch.start()

    def left(self) -> float:
        return self.ends - time.monotonic()

    def say(self, part: str, **cells: object) -> None:
        """Add a row to the table `part`: its cells by the names of their columns."""
        row = {"seconds": round(time.monotonic() - self.began, 1), "part": part, "cells": cells}
        shown = "  ".join(f"{column}: {cell}" for column, cell in cells.items())
        with self.writing, open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
            print(f"[{row['seconds']:5.1f} s] {part}: {shown}"[:1000], flush=True)

    def command(self, log: str, *arguments: object, limit: float = 150, **options: object) -> tuple[int | None, str]:
        """Run a Python command. Return its exit code, None if it took too long, and what it printed."""
        with open(self.logs / f"{log}.txt", "a+", encoding="utf-8", errors="replace") as file:
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

    def end(self, told: str) -> None:
        """End the process, and all that it started. Any thread may call this."""
        with self.writing:  # no row comes after this one
            self.say("The end", told=told)
            for group in list(self.running):
                with suppress(ProcessLookupError):  # it has ended by itself
                    os.killpg(group, signal.SIGKILL)
            shutil.make_archive(str(self.folder / "logs"), "zip", self.logs)
            shutil.rmtree(self.work, ignore_errors=True)
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
