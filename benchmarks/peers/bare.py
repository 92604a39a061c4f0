"""The loop one would write by hand: nothing but the training step."""

import torch
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from .turns import EPOCHS, TURNS

TURNS.flags()
model = TURNS.model()
optimizer = TURNS.optimizer(model)
if TURNS.processes > 1:
    torch.distributed.init_process_group("nccl" if TURNS.device.type == "cuda" else "gloo")
    model = DistributedDataParallel(model)
TURNS.wait()
for _ in range(EPOCHS):
    for images, labels in TURNS.batches():
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(model(images), labels).backward()
        optimizer.step()
