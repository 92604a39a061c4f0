"""Which samples make up which batch: it depends on (seed, epoch, number) alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np

from .. import rng
from ..errors import UserError
from ..machine.distributed import RANK, WORLD_SIZE
from ..rng import Domain, Permutation


class Batch(NamedTuple):
    """One micro-batch, before it is read."""

    epoch: int
    number: int
    """Place of the micro-batch in the epoch, over all processes."""
    indices: np.ndarray
    """int64, which samples of the data set."""


class Plan:
    """Which samples make up which batch.

    Step s of an epoch takes samples s·B … (s+1)·B - 1 of the epoch's order, in equal micro-batches.
    Any batch is reached without going through those before it.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        accumulate: int = 1,
        limit: int | None = None,
        order: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        """`order`: the indices of an epoch (from 0), `size` of them; without it all are shuffled."""
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.shuffle, self.order = shuffle, order
        self.micro_batches = accumulate * WORLD_SIZE
        """Micro-batches of a step, over all processes."""
        full, rest = divmod(size, batch_size)
        self.steps = full + (1 if rest and not drop_last else 0)
        self.steps = min(self.steps, limit or self.steps)
        self._order: tuple[int, Permutation | np.ndarray] | None = None

    def _slice(self, epoch: int, start: int, stop: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(start, min(stop, self.size))
        if self._order is None or self._order[0] != epoch:
            if self.order is None:
                key = rng.make_key(self.seed, Domain.ORDER, epoch)
                self._order = (epoch, Permutation(self.size, key))
            else:
                self._order = (epoch, self._own(self.order(epoch), epoch))
        order = self._order[1]
        return order.slice(start, stop) if isinstance(order, Permutation) else order[start:stop]

    def _own(self, order: np.ndarray, epoch: int) -> np.ndarray:
        if len(order) != self.size:
            raise UserError(
                f"The data's order(…) gave {len(order)} samples for epoch {epoch + 1} and "
                f"{self.size} for the first one; every epoch must have as many."
            )
        return order

    def samples(self, step: int) -> np.ndarray:
        """All samples of optimizer step `step` (counted over the run), int64."""
        epoch, place = divmod(step, self.steps)
        return self._slice(epoch, place * self.batch_size, (place + 1) * self.batch_size)

    def total(self, step: int) -> int:
        """How many samples optimizer step `step` has, over all processes."""
        return min(self.batch_size, self.size - step % self.steps * self.batch_size)

    def counts(self, step: int) -> list[int]:
        """How many samples each of this process's micro-batches of optimizer step `step` has."""
        if self.micro_batches == 1:  # the same as below in less time
            return [min(self.batch_size, self.size - step % self.steps * self.batch_size)]
        full, rest = divmod(self.total(step), self.micro_batches)
        mine = range(RANK, self.micro_batches, WORLD_SIZE)
        counts = [full + (1 if place < rest else 0) for place in mine]
        return [count for count in counts if count]

    def span(self, start: int, stop: int) -> Iterator[Batch]:
        """The micro-batches of steps `start` … `stop` - 1."""
        return chain.from_iterable(map(self.batches, range(start, stop)))

    def batches(self, step: int) -> list[Batch]:
        """This process's micro-batches of optimizer step `step`.

        The step's samples are cut into micro-batches that do not depend on the number of
        processes; each process takes every WORLD_SIZE-th.
        """
        epoch, place = divmod(step, self.steps)
        samples = self.samples(step)
        cut = [samples] if self.micro_batches == 1 else np.array_split(samples, self.micro_batches)
        return [
            Batch(epoch, place * self.micro_batches + micro, cut[micro])
            for micro in range(RANK, self.micro_batches, WORLD_SIZE)
            if len(cut[micro])
        ]


def own_order(
    order: Callable[[int, int], np.ndarray | None], seed: int, samples: int, epoch: int
) -> np.ndarray:
    """What `Data.order` gives for `epoch` (from 0) of a training set of so many samples.

    Raises `UserError` where that is no order.
    """
    indices = np.asarray(order(epoch + 1, rng.make_key(seed, Domain.ORDER, epoch)))
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise UserError(
            f"The data's order(…) must return whole numbers in one dimension, not {indices.dtype} "
            f"of shape {list(indices.shape)}."
        )
    for index in (indices.min(initial=0), indices.max(initial=0)):
        if not 0 <= index < samples:
            raise UserError(
                f"The data's order(…) names sample {index} in epoch {epoch + 1}; the training set "
                f"has samples 0 to {samples - 1}."
            )
    return indices.astype(np.int64)


def check_size(size: int, batch_size: int, accumulate: int, drop_last: bool) -> None:
    """Refuse a training set that gives no batch. Raises `UserError`."""
    if size == 0:
        raise UserError("The training set is empty.")
    micro_batches = accumulate * WORLD_SIZE
    if batch_size % micro_batches:
        raise UserError(
            f"batch_size={batch_size} cannot be divided into equal parts for {WORLD_SIZE} processes "
            f"with accumulate={accumulate}; make it a multiple of {micro_batches}."
        )
    if drop_last and size < batch_size:
        raise UserError(
            f"batch_size={batch_size} is larger than the training set of {size} samples; lower "
            "it, or set drop_last=false."
        )
    rest = size % batch_size
    if WORLD_SIZE > 1 and not drop_last and 0 < rest < micro_batches:
        raise UserError(
            f"drop_last=false leaves a last batch of {rest} samples for {micro_batches} micro-batches "
            f"on {WORLD_SIZE} processes; change batch_size or set drop_last=true."
        )
