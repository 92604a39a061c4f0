"""The processes of a run, started by torchrun: their ranks, and what they tell each other.

With a single process, each function returns at once.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

RANK = int(os.environ.get("RANK", "0"))

WORLD_SIZE = int(os.environ.get("WORLD_SIZE", "1"))

LOCAL_RANK = int(os.environ.get("LOCAL_RANK", "0"))

_hosts: Any = None
"""A gloo group for Python objects and votes. Gradients go through another group."""

_has_tried = False
"""Whether this process has tried to join the others."""


def is_main() -> bool:
    return RANK == 0


def start(seconds: float | None = None) -> None:
    """Join the other processes: NCCL between GPUs, gloo between CPUs.

    seconds: how long to wait for them. None: torch's default.
    """
    global _hosts, _has_tried
    if WORLD_SIZE == 1 or _hosts is not None:
        return
    _has_tried = True
    import torch
    from torch import distributed as dist

    on_gpu = torch.cuda.is_available() and torch.cuda.device_count() > LOCAL_RANK
    timeout = None if seconds is None else timedelta(seconds=seconds)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=timeout)
    _hosts = dist.new_group(backend="gloo")


def is_awaited() -> bool:
    """Whether others wait for this process to join them."""
    return WORLD_SIZE > 1 and not _has_tried


def finish() -> None:
    """Leave together, because a process that leaves early aborts the others."""
    global _hosts
    if _hosts is None:
        return
    from torch import distributed as dist

    dist.barrier(group=_hosts)
    dist.destroy_process_group()
    _hosts = None


def from_main(value: Any) -> Any:
    """Return the main process's `value` in all processes."""
    if _hosts is None:
        return value
    from torch import distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0, group=_hosts)
    return box[0]


def from_all(value: Any) -> list[Any]:
    """Return the values of all processes, in the order of ranks, in all processes."""
    if _hosts is None:
        return [value]
    from torch import distributed as dist

    gathered: list[Any] = [None] * WORLD_SIZE
    dist.all_gather_object(gathered, value, group=_hosts)
    return gathered


def sum_over_processes(value: Any) -> Any:
    """Sum a tensor over all processes, in place."""
    if WORLD_SIZE > 1:
        from torch import distributed as dist

        dist.all_reduce(value)
    return value


class Vote:
    """A vote that does not block: whether any process wished for something at the vote before.

    All processes call it equally often. If calls are quick, only every n-th is a vote, because a
    vote would take longer than a small step. The slowest process determines n for all.
    """

    _PAUSE = 0.01  # seconds between two votes, about
    _MOST = 16  # calls

    def __init__(self) -> None:
        self._work: Any = None
        self._ballot: Any = None
        self._calls, self._every, self._since = 0, 1, time.perf_counter()

    def ask(self, wish: bool) -> bool:
        """Cast this process's wish. Return whether any process wished it at the vote before."""
        if _hosts is None:
            return wish
        self._calls += 1
        if self._calls < self._every:
            return False
        import torch
        from torch import distributed as dist

        agreed = False
        if self._work is not None:
            self._work.wait()
            wished, seconds = self._ballot.tolist()
            agreed = wished > 0
            self._every = max(1, min(self._MOST, int(self._PAUSE / max(seconds, 1e-6))))
        now = time.perf_counter()
        self._ballot = torch.tensor([float(wish), (now - self._since) / self._calls])
        self._calls, self._since = 0, now
        self._work = dist.all_reduce(
            self._ballot, op=dist.ReduceOp.MAX, group=_hosts, async_op=True
        )
        return agreed

    def restart(self) -> None:
        """Vote at the next call, because calls may be slower from now on."""
        self.close()
        self._calls, self._every, self._since = 0, 1, time.perf_counter()

    def close(self) -> None:
        """Wait for the vote that is under way."""
        if self._work is not None:
            self._work.wait()
            self._work = None


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Let the main process run the block before the others do. For downloads."""
    if not is_main():
        from_main(None)
    yield
    if is_main():
        from_main(None)
