"""Contestants: processes that run in turn, each in its own environment."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from .common import ROOT, THREADS, project, temporary


class Worker:
    """A process `python -m benchmarks.peers.MODULE`. Its standard input says when it is its turn."""

    def __init__(
        self,
        name: str,
        module: str,
        settings: dict[str, Any],
        python: str = sys.executable,
        arguments: Sequence[str] = (),
        processes: int = 1,
    ) -> None:
        self.name = name
        self.folder = temporary()
        self.log = open(self.folder / "log.txt", "w+", errors="replace")  # noqa: SIM115 - as long as the worker
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        variables |= {
            "BENCHMARK": json.dumps({**settings, "folder": str(self.folder)}),
            "OMP_NUM_THREADS": str(THREADS),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(project()), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        command = [python, "-m", f"benchmarks.peers.{module}", *arguments]
        if processes > 1:
            variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(processes)}
        self.followers = []
        for rank in range(processes):
            named = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**variables, **named},
                stdin=subprocess.DEVNULL if rank else subprocess.PIPE,
                stdout=self.log if rank else subprocess.PIPE,
                stderr=self.log,
                text=True,
                process_group=0,  # its loader workers and compilers, too
            )
            if rank:
                self.followers.append(process)
            else:
                self.process = process

    def turn(self, limit: float | None = None) -> Any:
        """Return its answer after a turn.

        Raises `RuntimeError` if it ended, with its last error, or if it gave no answer within `limit` seconds.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
            if not select.select([self.process.stdout], [], [], limit)[0]:
                os.killpg(self.process.pid, signal.SIGKILL)
                raise RuntimeError(f"no answer within {limit:g} s")
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.process.wait()
            self.log.seek(0)
            lines = [line.strip() for line in self.log if line.strip()]
            errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
            raise RuntimeError((errors or lines or ["no answer"])[-1])
        return json.loads(line)

    def close(self) -> None:
        for process in (self.process, *self.followers):
            process.kill()
            process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            assert stream is not None
            with suppress(BrokenPipeError):  # the worker may have ended before it read this
                stream.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def in_turns(
    workers: Sequence[Worker],
    rounds: int,
    told: Callable[[str, Any], object] = lambda name, answer: None,
    limit: float | None = None,
    is_late: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Return the answers of each worker, in turn (A B A B …) after a warm-up turn, and why others failed.

    told: gets each name and answer at once. limit: seconds of a turn, or the worker has failed. is_late: asked after
    each round whether it was the last. Closes the workers.
    """
    answers: dict[str, list[Any]] = {worker.name: [] for worker in workers}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        for worker in workers:
            stack.callback(worker.close)
        for turn in range(rounds + 1):
            if turn > 1 and is_late():
                break
            for worker in workers:
                if worker.name in failed:
                    continue
                try:
                    answer = worker.turn(limit)
                except RuntimeError as error:
                    failed[worker.name] = str(error)
                    del answers[worker.name]
                    continue
                if turn:
                    answers[worker.name].append(answer)
                    told(worker.name, answer)
    return answers, failed
