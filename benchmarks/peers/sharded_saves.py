"""One turn saves a divided state three times: `dcp.save`, `dcp.async_save` and ours. Seconds of the first process."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import torch
from digits.engine.machine import distributed
from digits.engine.run.sharded_saver import ShardedSaver
from torch.distributed import checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

SETTINGS = json.loads(os.environ["BENCHMARK"])
distributed.start()
mesh = init_device_mesh("cpu", (distributed.WORLD_SIZE,))
torch.manual_seed(0)
weights = {f"layer{n}": torch.randn(512, 512) for n in range(SETTINGS["mebibytes"])}
state = {"model": {name: distribute_tensor(weight, mesh, [Shard(0)]) for name, weight in weights.items()}}
folder = Path(SETTINGS["folder"])
saver = ShardedSaver(folder / "ours", keep_last=1)
if distributed.is_main():
    (folder / "ours").mkdir()
group = distributed.new_group()


def theirs(kind: str) -> tuple[float, float]:
    """Return the seconds until training may go on, and until the files are written."""
    target = folder / kind
    distributed.from_all(None)
    began = time.perf_counter()
    if kind == "async_save":
        future = dcp.async_save(state, checkpoint_id=target, process_group=group)
        waited = time.perf_counter() - began
        future.result()
    else:
        dcp.save(state, checkpoint_id=target, process_group=group)
        waited = time.perf_counter() - began
    whole = time.perf_counter() - began
    distributed.from_all(None)
    if distributed.is_main():
        shutil.rmtree(target)
    return waited, whole


def ours(step: int) -> tuple[float, float]:
    distributed.from_all(None)
    began = time.perf_counter()
    saver.save({**state, "step": step}, step)
    waited = time.perf_counter() - began
    saver.wait()
    return waited, time.perf_counter() - began


step = 0
while distributed.from_main(bool(sys.stdin.readline()) if distributed.is_main() else None):
    step += 1
    answer = [theirs("save")[0], *theirs("async_save"), *ours(step)]
    if distributed.is_main():
        print(json.dumps(answer), flush=True)
