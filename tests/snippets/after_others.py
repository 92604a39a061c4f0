"""Two other runs, then the one that is asked for, in one process."""

import os
import random
import sys

import numpy as np
import torch
from digits.engine import launch, signals
from digits.engine.train import train

others = (
    ["name=other", "seed=7", "model.hidden=[16,16]", "mix=mixup", "data.collate=null", "clip_grad_norm=0.1"],
    ["name=another", "precision=bf16", "deterministic=false", "model.dropout=0.5", "scheduler=plateau"],
)
signals.install()
for extra in (*others, []):
    overrides = [*sys.argv[1:], *extra]
    config = launch.compose(*overrides)
    os.environ["BATCHES"] = config.name + ".batches"
    train(launch.Job(config, overrides, None, None))
    torch.rand(5), np.random.rand(5), random.random()
