"""Reading batches: what a sample is depends on (seed, epoch, number) alone."""

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, groupby, islice
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from .. import rng, signals
from ..api import BatchDataset
from ..config.schema import Config
from ..errors import UserError
from ..machine.device import map_tensors, prefetched, shapes, to_device
from ..machine.distributed import LOCAL_WORLD_SIZE, WORLD_SIZE
from ..machine.torch_internals import split_rows
from ..rng import Domain
from ..text import logger
from .plan import Batch, Plan
from .sending import check_sendable, received, sent, starting


class _Reader(Dataset[Any]):
    """Reads whole micro-batches, with all randomness keyed. Runs in loader workers, too."""

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[list[Any]], Any] | None,
        seed: int,
        domain: Domain,
        contiguous: bool,
    ) -> None:
        self.dataset, self.collate, self.contiguous = dataset, collate, contiguous
        self.seed, self.domain = seed, domain
        self.takes_keys = isinstance(dataset, BatchDataset)
        while isinstance(dataset, Subset):
            dataset = dataset.dataset
        self.set_epoch = getattr(dataset, "set_epoch", None)
        # Most of torch's own wrappers have the method, but read one sample after the other with it.
        own = not type(dataset).__module__.startswith("torch.utils.data")
        self.fetches = own and hasattr(dataset, "__getitems__")

    def __getitem__(self, batch: Batch) -> Any:
        read = self.read(batch)
        return map_tensors(usual_strides, read) if self.contiguous else read

    def read(self, batch: Batch) -> Any:
        if self.set_epoch is not None:  # from 1; it is 0 outside of training
            self.set_epoch(batch.epoch + 1 if self.domain == Domain.SAMPLE else 0)
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
        return joined(samples, indices) if self.collate is None else self.collate(samples)

    def together(self, batches: list[Batch]) -> Iterable[Any]:
        """Read micro-batches of one epoch in one call of a `BatchDataset` with `sample_bytes`."""
        if len(batches) == 1:
            return [self[batches[0]]]
        indices = np.concatenate([batch.indices for batch in batches])
        block = self[batches[0]._replace(indices=indices)]
        parts = map_tensors(partial(self._cut, [len(batch.indices) for batch in batches]), block)
        if type(parts) is tuple and parts and all(isinstance(part, Iterator) for part in parts):
            return zip(*parts, strict=True)  # batches of the usual form, quickly
        return [map_tensors(next, parts, Iterator) for _ in batches]

    def _cut(self, sizes: list[int], rows: torch.Tensor) -> Iterator[torch.Tensor]:
        """Cut rows into parts. Each part may be changed in place, like a tensor of its own."""
        if rows.shape[:1] != (sum(sizes),):
            raise UserError(
                f"batch(…) gave a tensor of shape {list(rows.shape)} for {sum(sizes)} samples. "
                "With sample_bytes, a tensor needs one row per sample."
            )
        parts = split_rows(rows, sizes)
        # Some kernels add in another order if memory is not aligned like that of a new tensor.
        return iter([p if p.storage_offset() * p.itemsize % 256 == 0 else p.clone() for p in parts])


def joined(samples: list[Any], indices: Sequence[int]) -> Any:
    """Return the batch that torch makes of samples. Raises `UserError`, which names two of them."""
    try:
        return default_collate(samples)
    except Exception as error:  # torch raises many kinds, and your types may raise any
        for sample, index in zip(samples, indices, strict=True):
            try:
                default_collate([samples[0], sample])
            except Exception:  # the same error with two samples: this is the one
                first = f", but sample {indices[0]} is {shapes(samples[0])}"
                raise UserError(
                    f"Sample {index} is {shapes(sample)}{first if index != indices[0] else ''}. torch "
                    "cannot join them into a batch. Let all samples be tensors or numbers of one shape, "
                    "or give the data a `collate`."
                ) from error
        raise


def usual_strides(images: torch.Tensor) -> torch.Tensor:
    """Return 4-dimensional tensors as NCHW in memory. Strides of one channel may say NHWC as well."""
    return images.contiguous().flatten().view(images.shape) if images.ndim == 4 else images


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_device(dataset: Any, device: torch.device) -> Any:
    """Return the data set on `device`, where it makes its batches. Raises `UserError`."""
    if not (isinstance(dataset, BatchDataset) and hasattr(dataset, "to")):
        raise UserError(
            f"data_on_device=true needs data with a method `to`, which {type(dataset).__name__} lacks. "
            "image_folder with data.in_memory=true has it."
        )
    try:
        return dataset if device.type == "cpu" else dataset.to(device)
    except torch.OutOfMemoryError:
        raise UserError("The data do not fit on the GPU. Set data_on_device=false.") from None


def own_order(
    order: Callable[[int, int], np.ndarray | None], seed: int, samples: int, epoch: int
) -> np.ndarray:
    """Return the `Data.order` of `epoch` (from 0) over `samples`, int64. Raises `UserError`."""
    key = rng.make_key(seed, Domain.ORDER, epoch)
    rng.seed_all(key)  # for an order that draws from numpy.random
    indices = np.asarray(order(epoch + 1, key))
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        given = f"{indices.dtype} of shape {list(indices.shape)}"
        raise UserError(f"order(…) must return whole numbers in one dimension, not {given}.")
    outside = indices[(indices < 0) | (indices >= samples)]
    if len(outside):
        where = f"sample {outside[0]} in epoch {epoch + 1}"
        raise UserError(f"order(…) names {where}. It must lie between 0 and {samples - 1}.")
    return indices.astype(np.int64)


def check_size(size: int, config: Config) -> None:
    """Refuse a training set that gives no batch. Raises `UserError`."""
    processes, batch_size = config.virtual_ranks or WORLD_SIZE, config.batch_size
    micro_batches = config.accumulate * processes
    if size == 0:
        raise UserError("The training set is empty.")
    if processes % WORLD_SIZE:
        told = f"{WORLD_SIZE} processes do not divide virtual_ranks={processes}."
        raise UserError(f"{told} Start 1, 2, 4 … of them, up to {processes}.")
    if batch_size % micro_batches:
        where = f"accumulate={config.accumulate} on {processes} processes"
        raise UserError(f"batch_size={batch_size} is not a multiple of {micro_batches} ({where}).")
    if config.drop_last and size < batch_size:
        larger = f"batch_size={batch_size} is larger than the training set of {size} samples."
        raise UserError(f"{larger} Lower it, or set drop_last=false.")
    if processes > 1 and not config.drop_last and 0 < size % batch_size < micro_batches:
        left = f"{size % batch_size} samples for the last {micro_batches} micro-batches"
        raise UserError(f"drop_last=false leaves {left}. Change batch_size, or set drop_last=true.")


_TOGETHER = 4096, 4 << 20
"""Samples and bytes read in one call, at most. Ten small batches take about as long as one."""

_QUICK = 0.002  # seconds that a worker needs to hand over a batch, about
_START = 0.3  # seconds that workers need to start, about


class Loader:
    """Reads the micro-batches of a plan, ahead of their use if there are workers."""

    def __init__(
        self,
        dataset: Any,
        plan: Plan,
        collate: Callable[[list[Any]], Any] | None,
        domain: Domain,
        workers: int | None,
        device: torch.device,
        contiguous: bool = True,
    ) -> None:
        """contiguous: whether to lay out images as NCHW. Else they stay as the data return them."""
        self.plan, self.device, self.workers = plan, device, workers
        self.reader = _Reader(dataset, collate, plan.seed, domain, contiguous)
        self.ahead = getattr(dataset, "reads_ahead", True)
        self.in_workers = self.ahead and getattr(dataset, "in_workers", not self.reader.takes_keys)
        self.seconds: float | None = None  # that `first` took to read a micro-batch

    def read(self, start: int, stop: int) -> Iterator[Any]:
        """Return the micro-batches of steps `start` … `stop` - 1, in order, on the device.

        Use `ended` to end the loader workers if the iterator is left early.
        """
        workers = self.worker_count(stop - start)
        batches = self._with(workers, start, stop) if workers else self._here(start, stop)
        if not self.ahead:
            return map(partial(to_device, device=self.device), batches)
        return batches if self.device.type == "cpu" else prefetched(batches, self.device)

    def first(self) -> Any:
        """Read the first micro-batch in this process, and note how long it takes."""
        if self.in_workers and self.workers:
            check_sendable(self.reader)
        began = time.perf_counter()
        batch = self.read_here(self.plan.batches(0)[0])
        self.seconds = time.perf_counter() - began
        return batch

    def read_here(self, batch: Batch) -> Any:
        """Read a micro-batch as a worker would: in one thread, because sums depend on threads."""
        if not self.in_workers:
            return self.reader[batch]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self.reader[batch]
        finally:
            torch.set_num_threads(threads)

    def worker_count(self, steps: int) -> int:
        """How many loader workers read so many steps. Results do not depend on it."""
        if not self.in_workers:
            return 0
        if self.workers is not None:
            return self.workers
        count = min(8, max(1, cores() // LOCAL_WORLD_SIZE))
        if self.seconds is None:
            return count
        total = self.seconds * steps * self.plan.micro_batches / WORLD_SIZE
        count = 0 if self.seconds < _QUICK or total < _START else count
        if self.reader.domain == Domain.SAMPLE:
            took = f"Reading a batch took {1e3 * self.seconds:.1f} ms"
            logger.info(f"{took}: {count} loader workers, {torch.get_num_threads()} threads")
        return count

    def _here(self, start: int, stop: int) -> Iterator[Any]:
        """Read in this process. A step runs no Python code for it, unless a new block begins."""
        read = partial(map, self.read_here) if self.in_workers else self.reader.together
        batches = chain.from_iterable(map(read, self._blocks(start, stop)))
        pin = partial(map_tensors, lambda tensor: tensor if tensor.is_cuda else tensor.pin_memory())
        return batches if self.device.type == "cpu" else map(pin, batches)

    def _blocks(self, start: int, stop: int) -> Iterator[list[Batch]]:
        """Yield the micro-batches of these steps in lists, each for one call and of one epoch."""
        size, samples = getattr(self.reader.dataset, "sample_bytes", None), 0
        if size is not None and self.reader.takes_keys and self.ahead:
            samples = min(_TOGETHER[0], _TOGETHER[1] // max(1, size))
        count = max(1, samples * self.plan.micro_batches // self.plan.batch_size)
        for _, span in groupby(self.plan.span(start, stop), attrgetter("epoch")):
            while block := list(islice(span, count)):
                yield block

    def _with(self, workers: int, start: int, stop: int) -> Generator[Any, None, None]:
        loader = DataLoader(
            self.reader,
            batch_size=None,
            sampler=self.plan.span(start, stop),
            collate_fn=sent,
            num_workers=workers,
            worker_init_fn=signals.in_worker,
            pin_memory=self.device.type == "cuda",
            # Otherwise the iterator draws from the global generator.
            generator=torch.Generator(),
        )
        with signals.held_back(), starting(workers):
            batches = iter(loader)
        try:
            yield from map(received, batches)
        except (ConnectionError, EOFError) as error:
            if "in DataLoader worker process" in str(error):  # raised by the data set
                raise
            raise RuntimeError("A DataLoader worker exited unexpectedly") from error
        finally:
            del batches  # a traceback would keep the workers until the interpreter kills them
