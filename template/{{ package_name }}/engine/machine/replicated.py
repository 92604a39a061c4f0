"""A model that several processes train: each holds all of it, and they average its gradients."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from torch.nn.parallel import DistributedDataParallel

from .distributed import WORLD_SIZE


@contextlib.contextmanager
def arrivals(model: nn.Module, arrived: dict[nn.Parameter, bool]) -> Iterator[None]:
    """Note the order in which a backward pass in the block completes gradients, and which are sparse."""

    def note(parameter: Tensor) -> None:
        assert isinstance(parameter, nn.Parameter)
        assert parameter.grad is not None
        arrived[parameter] = parameter.grad.is_sparse

    trained = [q for q in model.parameters() if q.requires_grad]
    handles = [parameter.register_post_accumulate_grad_hook(note) for parameter in trained]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def replicate(
    model: nn.Module, device: torch.device, in_turn: bool, arrived: dict[nn.Parameter, bool]
) -> DistributedDataParallel:
    """Return the model in DistributedDataParallel, which groups gradients in the order `arrived`.

    It chooses the groups after its first backward pass. With three processes or more, the place of a
    gradient in a group decides in which order it is added. So this pass is done here: otherwise the
    first step of each process would round in another way, and a resumed run would not be exact.
    in_turn: networks trained in turn leave one another without gradients. Then it keeps its groups.
    """
    devices = [device] if device.type == "cuda" else None
    found = DistributedDataParallel(model, device_ids=devices, find_unused_parameters=in_turn)
    if WORLD_SIZE > 2 and not in_turn and arrived:
        found.module = _Sum(arrived, model)
        found(torch.zeros((), device=device)).backward()
        found.module = model
        for parameter in arrived:
            parameter.grad = None
    return found


class _Sum(nn.Module):
    """A sum of parameters, whose backward pass completes their gradients in the order `arrived`."""

    def __init__(self, arrived: dict[nn.Parameter, bool], model: nn.Module) -> None:
        super().__init__()
        self.rows = [(parameter, is_sparse) for parameter, is_sparse in reversed(arrived.items())]
        self.buffers_of = model.named_buffers

    def named_buffers(self, *options: Any, **named: Any) -> Iterator[tuple[str, Tensor]]:
        return self.buffers_of(*options, **named)  # processes share them

    def forward(self, total: Tensor) -> Tensor:
        for parameter, is_sparse in self.rows:
            if is_sparse:
                row = torch.zeros(1, dtype=torch.int64, device=parameter.device)
                total = total + embedding(row, parameter, sparse=True).sum()
            else:
                total = total + parameter.sum().real
        return total
