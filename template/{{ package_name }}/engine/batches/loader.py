"""Reading batches: what a sample is depends on (seed, epoch, number) alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice, repeat
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from .. import rng, signals
from ..api import BatchDataset
from ..errors import UserError
from ..machine.device import map_tensors, prefetched
from ..machine.distributed import WORLD_SIZE
from ..machine.torch_internals import split_rows
from ..rng import Domain
from ..text import logger
from .plan import Batch, Plan


class _Reader(Dataset[Any]):
    """Reads a whole micro-batch, with all randomness keyed; runs in the loader's workers."""

    def __init__(
        self, dataset: Any, collate: Callable[[list[Any]], Any] | None, seed: int, domain: Domain
    ) -> None:
        self.dataset, self.collate = dataset, collate or default_collate
        self.seed, self.domain = seed, domain
        self.takes_keys = isinstance(dataset, BatchDataset)
        self.fetches = _fetches(dataset)

    def __getitem__(self, batch: Batch) -> Any:
        key = rng.make_key(self.seed, self.domain, batch.epoch)
        if self.takes_keys:
            return self.dataset.batch(batch.indices, rng.fold_in_array(key, batch.indices))
        indices = batch.indices.tolist()
        if self.fetches:
            rng.seed_all(rng.fold_in(key, indices[0]))
            samples = self.dataset.__getitems__(indices)
        else:
            samples = []
            for index in indices:
                rng.seed_all(rng.fold_in(key, index))
                samples.append(self.dataset[index])
        rng.seed_all(rng.make_key(self.seed, Domain.BATCH, self.domain, batch.epoch, batch.number))
        return self.collate(samples)

    def together(self, batches: list[Batch]) -> Iterator[Any]:
        """Micro-batches of one epoch, of a `BatchDataset` with `sample_bytes`, in one call."""
        if len(batches) == 1:
            yield self[batches[0]]
            return
        key = rng.make_key(self.seed, self.domain, batches[0].epoch)
        indices = np.concatenate([batch.indices for batch in batches])
        block = self.dataset.batch(indices, rng.fold_in_array(key, indices))
        leaves: list[torch.Tensor] = []

        def note(leaf: torch.Tensor) -> torch.Tensor:
            if leaf.shape[:1] != indices.shape:
                raise UserError(
                    f"{type(self.dataset).__name__}.batch gave a tensor of shape {list(leaf.shape)} "
                    f"for {len(indices)} samples; with sample_bytes, each must have a row for each."
                )
            leaves.append(leaf)
            return leaf

        map_tensors(note, block)
        is_flat = type(block) is tuple and all(isinstance(x, torch.Tensor) for x in block)
        sizes = [len(batch.indices) for batch in batches]
        rows = zip(*(_cut(leaf, sizes) for leaf in leaves), strict=True) if leaves else repeat(())
        for _, row in zip(sizes, rows, strict=False):
            yield row if is_flat else map_tensors(partial(_next, iter(row)), block)


def _fetches(dataset: Any) -> bool:
    """Whether a data set reads the samples of a batch itself. torch's own wrappers all have the
    method, and most read one sample after the other with it."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    own = not type(dataset).__module__.startswith("torch.utils.data")
    return own and hasattr(dataset, "__getitems__")


def _next(parts: Iterator[torch.Tensor], _: torch.Tensor) -> torch.Tensor:
    return next(parts)


def _cut(rows: torch.Tensor, sizes: list[int]) -> Iterator[torch.Tensor]:
    """Parts of so many rows. Each may be changed in place, as a tensor of its own: none is a view."""
    for part in split_rows(rows, sizes):
        # Kernels may add up in another order where memory is not aligned as that of its own is.
        yield part if part.storage_offset() * part.itemsize % 256 == 0 else part.clone()


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.is_cuda else tensor.pin_memory()


def _start_worker(worker: int) -> None:
    signals.in_worker()
    torch.set_num_threads(1)


def _itself(batch: Any) -> Any:
    return batch


def on_device(dataset: Any, device: torch.device) -> Any:
    """The data set, kept on `device`, where its batches are made. Raises `UserError`."""
    if not (isinstance(dataset, BatchDataset) and hasattr(dataset, "to")):
        raise UserError(
            "data_on_device=true needs data in memory that have a method `to` (such as mnist, "
            f"cifar10, or image_folder with data.in_memory=true), not {type(dataset).__name__}; set "
            "it to false."
        )
    try:
        return dataset if device.type == "cpu" else dataset.to(device)
    except torch.OutOfMemoryError:
        raise UserError(
            "The data do not fit into the GPU's memory; set data_on_device=false."
        ) from None


_TOGETHER = 4096, 4 << 20
"""At most so many samples and bytes of a `BatchDataset` are read in one call."""

_QUICK = 0.002
"""Seconds: a batch that is read sooner costs a worker as much to hand over."""

_START = 0.3
"""Seconds that workers take to start, about."""


@contextmanager
def ended(batches: Iterator[Any]) -> Iterator[None]:
    """Close `batches` at the end of the block. It ends the loader workers that read them."""
    try:
        yield
    finally:
        if isinstance(batches, Generator):
            batches.close()


class Loader:
    """Reads the micro-batches of a plan, ahead of their use where there are workers."""

    def __init__(
        self,
        dataset: Any,
        plan: Plan,
        collate: Callable[[list[Any]], Any] | None,
        domain: Domain,
        workers: int | None,
        device: torch.device,
    ) -> None:
        self.plan, self.device, self.workers = plan, device, workers
        self.reader = _Reader(dataset, collate, plan.seed, domain)
        self.in_workers = getattr(dataset, "in_workers", not self.reader.takes_keys)
        self.seconds: float | None = None
        """What reading a micro-batch took; `first` measures it."""

    def read(self, start: int, stop: int) -> Iterator[Any]:
        """Return the micro-batches of steps `start` … `stop` - 1, in order, on the device.

        Use `ended` to end the loader workers when the iterator is left early.
        """
        workers = self.worker_count(stop - start)
        if not workers and self.device.type == "cpu":
            return self._here(start, stop)
        return self._ahead(workers, start, stop)

    def _ahead(self, workers: int, start: int, stop: int) -> Generator[Any, None, None]:
        batches = self._with(workers, start, stop) if workers else self._here(start, stop)
        with ended(batches):
            yield from batches if self.device.type == "cpu" else prefetched(batches, self.device)

    def worker_count(self, steps: int) -> int:
        """How many loader processes read so many steps. Results do not depend on it."""
        if not self.in_workers:
            return 0
        if self.workers is not None:
            return self.workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        count = min(8, max(1, (cores or 1) // WORLD_SIZE))
        if self.seconds is None:
            return count
        total = self.seconds * steps * self.plan.micro_batches / WORLD_SIZE
        count = 0 if self.seconds < _QUICK or total < _START else count
        if self.reader.domain == Domain.SAMPLE:
            logger.info(
                f"Reading a batch took {1e3 * self.seconds:.1f} ms: {count} loader workers, and "
                f"{torch.get_num_threads()} threads that compute (workers=… chooses)"
            )
        return count

    def _here(self, start: int, stop: int) -> Iterator[Any]:
        """Read in this process. A step runs no Python code for it, unless a new block begins."""

        def read(block: list[Batch]) -> Iterable[Any]:
            if self.in_workers:
                return map(self._like_a_worker, block)
            return list(self.reader.together(block))

        batches = chain.from_iterable(map(read, self._blocks(start, stop)))
        return batches if self.device.type == "cpu" else map(partial(map_tensors, _pinned), batches)

    def _like_a_worker(self, batch: Batch) -> Any:
        """In one thread, as sums depend on how many there are, and workers have one."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self.reader[batch]
        finally:
            torch.set_num_threads(threads)

    def _blocks(self, start: int, stop: int) -> Iterator[list[Batch]]:
        """The micro-batches of these steps, cut into what is read in one call: a read of a small
        batch costs about as much as one of ten. A block ends with its epoch."""
        size, samples = getattr(self.reader.dataset, "sample_bytes", None), 0
        if size is not None and self.reader.takes_keys:
            samples = min(_TOGETHER[0], _TOGETHER[1] // max(1, size))
        count = max(1, samples * self.plan.micro_batches // self.plan.batch_size)
        while start < stop:
            end = min(stop, (start // self.plan.steps + 1) * self.plan.steps)
            span = self.plan.span(start, end)
            while block := list(islice(span, count)):
                yield block
            start = end

    def _with(self, workers: int, start: int, stop: int) -> Generator[Any, None, None]:
        loader = DataLoader(
            self.reader,
            batch_size=None,
            sampler=self.plan.span(start, stop),
            collate_fn=_itself,
            num_workers=workers,
            worker_init_fn=_start_worker,
            pin_memory=self.device.type == "cuda",
            # Without a generator of its own the iterator would draw from the global one.
            generator=torch.Generator(),
        )
        with signals.held_back():
            batches = iter(loader)
        try:
            yield from batches
        except (ConnectionError, EOFError) as error:
            if "in DataLoader worker process" in str(error):  # the data set's own
                raise
            raise RuntimeError("A DataLoader worker exited unexpectedly") from error
        finally:
            del batches  # else a traceback keeps the workers until the interpreter kills them

    def first(self) -> Any:
        """The first micro-batch, read in this process."""
        began = time.perf_counter()
        read = self._like_a_worker if self.in_workers else self.reader.__getitem__
        batch = read(self.plan.batches(0)[0])
        self.seconds = time.perf_counter() - began
        return batch
