"""What goes to loader workers and comes from them: the data set, open files, batches."""

import contextlib
import multiprocessing
import os
import pickle
import resource
from collections.abc import Iterator
from functools import cache
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

from torch.utils.data import get_worker_info

from ..errors import UserError, one_line
from ..machine.device import each
from ..text import logger

_PLACE = "/dev/shm"  # where torch puts shared memory; Docker gives it 64 MiB


@contextlib.contextmanager
def starting(workers: int = 0) -> Iterator[None]:
    """Start loader workers in the block. Raises `UserError` if they cannot get the data set."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # each batch on its way is an open file
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 16)), hard))
    if 0 <= hard < 64 + 16 * workers:  # a worker that cannot open a file would wait for ever
        raise UserError(
            f"Only {hard} files may be open, too few for {workers} loader workers. Raise the limit "
            "(ulimit -n 65536), or set workers=0."
        )
    try:
        yield
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise UserError(
            f"The data set cannot be sent to loader workers: {one_line(error)}. Make generators and open "
            "files in __getitem__, name functions instead of lambdas, or set workers=0."
        ) from error


def check_sendable(reader: Any) -> None:
    """Raise `UserError` if loader workers that are not forked cannot get the data set."""
    method = multiprocessing.get_start_method(allow_none=True)
    if (method or multiprocessing.get_all_start_methods()[0]) != "fork":
        with starting():
            ForkingPickler.dumps(reader)


class _Pickled(NamedTuple):
    batch: bytes


def sent(batch: Any) -> Any:
    """Return a batch as a loader worker sends it. A full shared memory would kill the worker."""
    worker, size = get_worker_info(), sum(tensor.nbytes for tensor in each(batch))
    others = 1 if worker is None else worker.num_workers  # all may send at this moment
    return _Pickled(pickle.dumps(batch)) if (1 + others) * size > _free() else batch


def received(batch: Any) -> Any:
    """Return a batch that a loader worker sent."""
    if type(batch) is not _Pickled:
        return batch
    _tell_once()
    return pickle.loads(batch.batch)


@cache
def _tell_once() -> None:
    logger.warning(
        f"{_PLACE} has {_free() / 2**20:,.0f} MiB left. So loader workers send batches through a pipe, "
        "which is slower. Give it more room (docker run --shm-size=8g), or lower workers."
    )


def _free() -> float:
    """Return the bytes that shared memory has left."""
    try:
        room = os.statvfs(_PLACE)
    except OSError:  # another system
        return float("inf")
    return room.f_bavail * room.f_frsize
