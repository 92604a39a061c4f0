"""`virtual_ranks`: the gradients of a step do not depend on the number of processes.

A step has a fixed number of virtual ranks, each with its own backward pass. Their gradients are
summed in a binary tree: ((0 + 1) + (2 + 3)) + … A process computes virtual ranks in a row: a whole
branch of the tree. Then the processes add their branches.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import GradBucket
from torch.futures import Future

from ..config.schema import Config
from ..machine.distributed import WORLD_SIZE
from ..machine.torch_internals import for_each

Gradients = dict[Tensor, Tensor | None]  # by parameter


class Tree:
    """Sums what virtual ranks compute: gradients, and the numbers that losses are means over."""

    def __init__(self, config: Config, model: nn.Module, loss: nn.Module, replicated: Any) -> None:
        """replicated: the model in DistributedDataParallel; None on one process."""
        self.accumulate, self.replicated = config.accumulate, replicated
        self.of_loss = list(loss.parameters())
        self.parameters = [*model.parameters(), *self.of_loss]
        self.done = 0  # micro-batches of this step
        self.branches: list[Gradients] = []
        """Sums over 2^k virtual ranks, large ones first. Each waits for another of its size."""
        self.divisors: list[Any] = []
        """`steps.divisor` of each virtual rank."""
        if replicated is not None:
            replicated.register_comm_hook(None, self._add_to_branches)

    @contextlib.contextmanager
    def micro_batch(self, steps: Any, last: bool) -> Iterator[None]:
        """The context of a micro-batch of `steps`. After the last one, all gradients are sums."""
        alone = last or self.replicated is None
        with contextlib.nullcontext() if alone else self.replicated.no_sync():
            yield
        self.done += 1
        if self.done % self.accumulate:  # the virtual rank goes on
            return
        self.divisors.append(steps.divisor)
        steps.divisor = None
        if not last:
            self._keep()
            return
        if self.divisors[0] is not None:
            steps.divisor = self._sum_of_divisors()
        self._finish(self.parameters if self.replicated is None else self.of_loss)
        self.done, self.branches, self.divisors = 0, [], []

    def _keep(self) -> None:
        """Take the gradients of a virtual rank, and add the branches that are complete now."""
        branch: Gradients = {parameter: parameter.grad for parameter in self.parameters}
        for parameter in self.parameters:
            parameter.grad = None
        count = self.done // self.accumulate
        while count % 2 == 0:
            branch, count = _added(self.branches.pop(), branch), count // 2
        self.branches.append(branch)

    def _finish(self, parameters: list[nn.Parameter]) -> None:
        """Sum up the gradients of parameters for which no hook does it."""
        total: Gradients = {parameter: parameter.grad for parameter in parameters}
        for branch in reversed(self.branches):
            total = _added(total, branch)
        for parameter, gradient in total.items():
            if gradient is not None and self.replicated is not None:
                gradient = tree_sum_over_processes(gradient.reshape(-1)).wait().view_as(gradient)
            parameter.grad = gradient

    def _add_to_branches(self, state: None, bucket: GradBucket) -> Future[Tensor]:
        """Sum up a bucket: gradients of the last virtual rank, while its backward pass goes on."""
        buffer, total = bucket.buffer(), Gradients()
        start = buffer.storage_offset()
        for parameter in bucket.parameters():  # a view: gradients lie in memory as parameters do
            total[parameter] = buffer.as_strided(parameter.shape, parameter.stride(), start)
            start += parameter.numel()
        for branch in reversed(self.branches):
            _added(total, branch)
        return tree_sum_over_processes(buffer)

    def _sum_of_divisors(self) -> Tensor:
        device = self.parameters[0].device
        floats = [torch.as_tensor(n, dtype=torch.float32).to(device) for n in self.divisors]
        own = of_all = torch.stack(floats)
        if self.replicated is not None:
            of_all = own.new_empty(len(own) * WORLD_SIZE)
            distributed.all_gather_into_tensor(of_all, own)
        return tree_sum(of_all)


def _added(total: Gradients, branch: Gradients) -> Gradients:
    """Add the gradients in `branch` to those in `total`, in place, and return all."""
    pairs = [(total[parameter], branch[parameter]) for parameter in total]
    if present := [(a, b) for a, b in pairs if a is not None and b is not None]:
        for_each("add_", *map(list, zip(*present, strict=True)))
    return {p: b if a is None else a for p, (a, b) in zip(total, pairs, strict=True)}


def tree_sum(rows: Tensor) -> Tensor:
    """Sum 2^k rows: neighbours first, then neighbouring sums."""
    while len(rows) > 1:
        rows = rows[0::2] + rows[1::2]
    return rows[0]


def tree_sum_over_processes(branch: Tensor) -> Future[Tensor]:
    """Sum a flat tensor over all processes, in the order of the tree.

    Each process sums one slice, which sends as many bytes as the usual ring.
    """
    size = branch.numel()
    whole = nn.functional.pad(branch, (0, -size % WORLD_SIZE))
    slices = torch.empty_like(whole)
    work: Any = distributed.all_to_all_single(slices, whole, async_op=True)
    if not branch.is_cuda:  # gloo has few threads: none of them may wait for another
        work.wait()

    def collect(_: Any) -> Tensor:
        own = tree_sum(slices.view(WORLD_SIZE, -1))
        distributed.all_gather_into_tensor(whole, own)
        return whole[:size]

    return work.get_future().then(collect)  # type: ignore[no-any-return]
