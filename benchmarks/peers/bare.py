"""A loop written by hand: only the training step. With `short` it uses our short optimizer step, and cuts its batches
from blocks, as ours does. With `fsdp`, several processes divide the parameters."""

import sys
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from .turns import EPOCHS, TURNS

TURNS.flags()
model = TURNS.model()
kind = AdamW
if "short" in sys.argv:
    from digits.engine.machine.torch_internals import short_class

    kind = short_class(AdamW)
if TURNS.processes > 1:
    torch.distributed.init_process_group("nccl" if TURNS.device.type == "cuda" else "gloo")
    if "fsdp" in sys.argv:
        model = fully_shard(model, mesh=init_device_mesh(TURNS.device.type, (TURNS.processes,)))
    else:
        model = DistributedDataParallel(model)
optimizer = TURNS.optimizer(model, kind)


def blocks() -> Iterator[tuple[Tensor, ...]]:
    rows = [part.to(TURNS.device) for part in TURNS.rows()]
    for chosen in torch.randperm(len(rows[0]), device=TURNS.device).split(256 * TURNS.batch):
        for batch in zip(*(part[chosen].split(TURNS.batch) for part in rows), strict=True):
            TURNS.step()
            yield batch


read = blocks if "short" in sys.argv else TURNS.batches
TURNS.wait()
for _ in range(EPOCHS):
    for images, labels in read():
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(model(images), labels).backward()
        optimizer.step()
