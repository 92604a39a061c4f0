"""Which samples make up which batch: it depends on (seed, epoch, number) alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import NamedTuple

import numpy as np

from .. import rng
from ..errors import UserError
from ..machine.distributed import RANK, WORLD_SIZE
from ..rng import Domain, Permutation


class Batch(NamedTuple):
    """One micro-batch, before it is read: the `number`-th of its epoch, over all processes."""

    epoch: int
    number: int
    indices: np.ndarray
    """int64, which samples of the data set."""


@dataclass(eq=False)
class Plan:
    """Step s of an epoch takes samples s·B … (s+1)·B - 1 of the epoch's order, B = `batch_size`.
    Its micro-batches are equal. Any batch is reached without going through the batches before it.
    """

    size: int  # samples of an epoch
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = True
    accumulate: int = 1
    limit: int | float | None = None  # steps of an epoch, or a share of them
    order: Callable[[int], np.ndarray] | None = None  # the indices of an epoch (from 0)
    subset: np.ndarray | None = None  # the samples to take; None: all
    virtual_ranks: int | None = None

    def __post_init__(self) -> None:
        self.processes = WORLD_SIZE if self.virtual_ranks is None else 1
        """Processes that average their gradients. With virtual ranks, a tree sums gradients."""
        self.micro_batches = self.accumulate * (self.virtual_ranks or WORLD_SIZE)
        """Micro-batches of a step, over all processes."""
        self.mine = range(RANK, self.micro_batches, WORLD_SIZE)
        """The numbers of this process's micro-batches in a step. With virtual ranks, in a row."""
        if self.virtual_ranks is not None:
            count = self.micro_batches // WORLD_SIZE
            self.mine = range(RANK * count, (RANK + 1) * count)
        size = self.size if self.drop_last else self.size + self.batch_size - 1
        steps, limit = size // self.batch_size, self.limit
        limit = max(1, round(limit * steps)) if isinstance(limit, float) else limit
        self.steps = min(steps, limit or steps)
        self._order: tuple[int, Permutation | np.ndarray] | None = None

    def samples(self, step: int) -> np.ndarray:
        """All samples of optimizer step `step` (counted over the run), int64."""
        epoch, place = divmod(step, self.steps)
        start, stop = place * self.batch_size, min((place + 1) * self.batch_size, self.size)
        if not self.shuffle:
            return np.arange(start, stop)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self._epoch_order(epoch))
        order = self._order[1]
        if isinstance(order, Permutation):
            places = order.slice(start, stop)
            return places if self.subset is None else self.subset[places]
        return order[start:stop]

    def _epoch_order(self, epoch: int) -> Permutation | np.ndarray:
        if self.order is None:
            return Permutation(self.size, rng.make_key(self.seed, Domain.ORDER, epoch))
        order = self.order(epoch)
        if len(order) != self.size:
            raise UserError(
                f"The data's order(…) gave {len(order)} samples for epoch {epoch + 1}, but "
                f"{self.size} for the first one. Give each epoch the same number of samples."
            )
        return order

    def epoch(self, steps: int) -> int:
        """Return the epoch of the last of so many steps, from 1. It is 0 before the first step."""
        return -(-steps // self.steps)

    def interval(self, epochs: int | float) -> int | Fraction:
        """Return the optimizer steps of so many epochs, at least 1; 0 for 0. It may be a fraction: a
        validation follows the first step at or after each multiple, so 0.25 gives four an epoch.
        """
        steps = Fraction(str(epochs)) * self.steps  # as written: 0.1 is a tenth
        steps = max(steps, Fraction(1)) if steps else steps
        return int(steps) if steps.denominator == 1 else steps

    def total(self, step: int) -> int:
        """How many samples optimizer step `step` has, over all processes."""
        return min(self.batch_size, self.size - step % self.steps * self.batch_size)

    def counts(self, step: int) -> list[int]:
        """How many samples each of this process's micro-batches of optimizer step `step` has."""
        if self.micro_batches == 1:  # the same as below in less time
            return [min(self.batch_size, self.size - step % self.steps * self.batch_size)]
        full, rest = divmod(self.total(step), self.micro_batches)
        return [full + (number < rest) for number in self.mine if full or number < rest]

    def batches(self, step: int) -> list[Batch]:
        """This process's micro-batches of a step. The world size does not change their samples."""
        (epoch, place), samples = divmod(step, self.steps), self.samples(step)
        cut = [samples] if self.micro_batches == 1 else np.array_split(samples, self.micro_batches)
        return [Batch(epoch, place * len(cut) + n, cut[n]) for n in self.mine if len(cut[n])]

    def span(self, start: int, stop: int) -> Iterator[Batch]:
        return chain.from_iterable(map(self.batches, range(start, stop)))
