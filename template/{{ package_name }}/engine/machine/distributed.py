"""The processes of a run, started by torchrun or srun: their ranks, and what they tell each other.

With a single process, each function returns at once.
"""

import contextlib
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, MutableMapping
from datetime import timedelta
from typing import Any

from ..errors import DeviceError, Failed, UserError, of_device
from ..paths import RUNS, shown
from ..text import say

_PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def _take_from_slurm(env: MutableMapping[str, str]) -> None:
    """Where `srun` itself started several tasks, say where each is as torchrun would."""
    if "SLURM_STEP_ID" not in env or "RANK" in env or int(env["SLURM_STEP_NUM_TASKS"]) == 1:
        return
    names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    env.update(zip(_PLACE, (env[name] for name in names), strict=False))
    on_hosts = env.get("SLURM_STEP_TASKS_PER_NODE", env["WORLD_SIZE"])  # "2(x3),1"
    env["LOCAL_WORLD_SIZE"] = re.split(r"\D", on_hosts)[0]
    first = re.match(r"([^,[]+)(?:\[(\w+))?", env["SLURM_STEP_NODELIST"])  # "gpu[07-09],big1"
    assert first is not None
    env.setdefault("MASTER_ADDR", first[1] + (first[2] or ""))
    env.setdefault("MASTER_PORT", str(15_000 + int(env["SLURM_JOB_ID"]) % 40_000))


_take_from_slurm(os.environ)
RANK = int(os.environ.get("RANK", "0"))
WORLD_SIZE = int(os.environ.get("WORLD_SIZE", "1"))
LOCAL_RANK = int(os.environ.get("LOCAL_RANK", "0"))
LOCAL_WORLD_SIZE = min(WORLD_SIZE, int(os.environ.get("LOCAL_WORLD_SIZE", WORLD_SIZE)))

_PATIENCE = os.environ.get("COLLECTIVE_TIMEOUT", "300")
"""Seconds that a process waits for the gradients or the vote of another."""

_hosts: Any = None
"""A gloo group for Python objects. Its members wait up to 30 minutes: the main process may download."""

_voters: Any = None
"""A gloo group for votes. Gradients go through a third group."""

_dist: Any = None
"""The module torch.distributed, once `start` was called. A single process needs no import of it."""


def is_main() -> bool:
    return RANK == 0


def stay_alone() -> None:
    """Ignore what a cluster's shell kept of other processes. Raises `UserError` under torchrun.

    Call it before other modules take the constants.
    """
    global RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE
    if WORLD_SIZE > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("This command runs in one process. Start it without torchrun.")
    RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE = 0, 1, 0, 1
    for name in _PLACE:
        os.environ.pop(name, None)


def expect_others() -> None:
    """Raise `UserError` if a shell's variables speak of processes that nothing started."""
    if not _PATIENCE.isdecimal() or _PATIENCE == "0":
        raise UserError(f"COLLECTIVE_TIMEOUT={_PATIENCE} is not possible. Give it whole seconds.")
    if WORLD_SIZE > 1 and "MASTER_ADDR" not in os.environ:
        raise UserError(
            f"The environment says WORLD_SIZE={WORLD_SIZE} but no MASTER_ADDR, where the processes "
            "meet. Start them with torchrun, or enter: unset RANK WORLD_SIZE LOCAL_RANK"
        )


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn an error of a device into `DeviceError`, and the end of another process into `Failed`."""
    try:
        yield
    except (RuntimeError, DeviceError) as error:
        if told := of_others(error):
            raise Failed(told) from error
        told = str(error) if isinstance(error, DeviceError) else of_device(error)
        if not told:
            raise
        if not is_main():
            say(f"Rank {RANK}: {told}")
        raise DeviceError(told) from error


def of_others(error: BaseException) -> str:
    """Return a sentence for an error that another process or its host causes; or ""."""
    if WORLD_SIZE == 1 or not isinstance(error, RuntimeError):
        return ""
    if re.search("Connection (closed|reset) by peer", str(error)):
        return "Another process has ended. Its last message says why."
    if re.search("(?i)timed out (waiting|after)|operation (timed out|timeout)", str(error)):
        told = f"Another process did not answer within {_PATIENCE} seconds. Its host or network failed,"
        return f"{told} or it was slow, such as while it saved: then raise COLLECTIVE_TIMEOUT."
    return ""


def own_gpu() -> int | None:
    """Return the index of this process's GPU, or None. `srun --gpus-per-task=1` shows it one only."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return 0 if count == 1 else LOCAL_RANK if count > LOCAL_RANK else None


@explained()
def start(seconds: float | None = None) -> None:
    """Join the others within `seconds`: NCCL between GPUs, gloo between CPUs. Raises `UserError`."""
    global _hosts, _voters, _dist
    if WORLD_SIZE == 1 or _hosts is not None:
        return
    import torch

    _dist = torch.distributed
    limit = timedelta(seconds=seconds or int(_PATIENCE))
    store, _, _ = next(_dist.rendezvous("env://", timeout=limit))
    gpu = own_gpu()
    uuid = "" if gpu is None else torch.cuda.get_device_properties(gpu).uuid
    store.set(f"gpu/{RANK}", f"{socket.gethostname()} {uuid}" if uuid else "")
    gpus = {store.get(f"gpu/{rank}") for rank in range(WORLD_SIZE)} - {b""}
    # NCCL waits for all processes as it starts. Each needs its own GPU.
    backend = "cpu:gloo,cuda:nccl" if len(gpus) == WORLD_SIZE else "gloo"
    _dist.init_process_group(backend, store=store, rank=RANK, world_size=WORLD_SIZE, timeout=limit)
    _hosts = new_group()
    _voters = _dist.new_group(backend="gloo", timeout=limit)
    if WORLD_SIZE > LOCAL_WORLD_SIZE:
        _refuse_separate_disks()


def _refuse_separate_disks() -> None:
    """Raise `UserError` if a host does not see the runs/ folder of the main process."""
    mark = RUNS / f".{secrets.token_hex(8)}.tmp"
    with contextlib.suppress(OSError):  # what makes the run folder tells it
        if is_main():
            RUNS.mkdir(exist_ok=True)
            mark.touch()
    mark = RUNS / from_main(mark.name)
    seen = from_all((mark.exists(), socket.gethostname()))
    with contextlib.suppress(OSError):
        if is_main():
            mark.unlink()
            RUNS.rmdir()  # unless it holds runs
    blind = [host for sees, host in seen if not sees]
    if blind and seen[0][0]:
        told = f"The host {blind[0]} does not see {shown(RUNS)}/ of {seen[0][1]}."
        raise UserError(f"{told} Put the project on a file system that all hosts share.")


def is_awaited() -> bool:
    """Whether others wait for this process to join them."""
    return WORLD_SIZE > 1 and _hosts is None


def finish() -> None:
    """Leave together, because a process that leaves early aborts the others."""
    global _hosts
    if _hosts is None:
        return
    if is_main():
        from_main(None)  # in place of a job
    _dist.barrier(group=_hosts)
    _dist.destroy_process_group()
    _hosts = None


def from_main(value: Any) -> Any:
    """Return the main process's `value` in all processes."""
    if _hosts is None:
        return value
    box = [value]
    _dist.broadcast_object_list(box, src=0, group=_hosts)
    return box[0]


def from_all(value: Any, group: Any = None) -> list[Any]:
    """Return the values of all processes, in the order of ranks, in all processes."""
    if _hosts is None:
        return [value]
    gathered: list[Any] = [None] * WORLD_SIZE
    _dist.all_gather_object(gathered, value, group=group or _hosts)
    return gathered


def new_group() -> Any:
    """Return another group of all processes, for a thread. Its members wait up to 30 minutes."""
    return _dist.new_group(backend="gloo", timeout=timedelta(minutes=30))


def sum_over_processes(value: Any) -> Any:
    """Sum a tensor over all processes, in place."""
    if WORLD_SIZE > 1:
        _dist.all_reduce(value)
    return value


def share_buffers(module: Any, recurse: bool = True) -> None:
    """Give all processes the main process's buffers, such as running statistics, as a resume does."""
    for buffer in module.buffers(recurse) if WORLD_SIZE > 1 else ():
        dense = buffer.contiguous()
        _dist.broadcast(dense, src=0)
        if dense is not buffer:
            buffer.copy_(dense)


class Vote:
    """A vote that does not block: whether any process wished for something at the vote before.

    All processes call it equally often. If calls are quick, only every n-th is a vote, because a
    vote would take longer than a small step. The slowest process determines n for all.
    """

    _PAUSE = 0.05  # seconds between two votes, about
    most = 16  # calls between two votes
    _work: Any = None
    _ballot: Any = None

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Wait for the vote under way. The next call votes, because calls may be slower then."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        self._calls, self._every, self._since = 0, 1, time.perf_counter()

    def ask(self, wish: bool) -> bool:
        """Cast this process's wish. Return whether any process wished it at the vote before."""
        if _hosts is None:
            return wish
        self._calls += 1
        if self._calls < self._every:
            return False
        import torch

        wished = 0.0
        if self._work is not None:
            self._work.wait()
            wished, seconds = self._ballot.tolist()
            self._every = max(1, min(self.most, int(self._PAUSE / max(seconds, 1e-6))))
        now = time.perf_counter()
        self._ballot = torch.tensor([float(wish), (now - self._since) / self._calls])
        self._calls, self._since = 0, now
        self._work = _dist.all_reduce(self._ballot, _dist.ReduceOp.MAX, _voters, async_op=True)
        return wished > 0
