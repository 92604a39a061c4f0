"""Save again and again until this process is killed. All tensors of a checkpoint hold the number of its step."""

import itertools
import os
import sys
from pathlib import Path

import torch
from digits.engine.run import names
from digits.engine.run.saver import Saver

folder, naive = Path(sys.argv[1]), sys.argv[2] == "naive"
state = {
    **{"format": 1, "interface": 1, "epoch": 1, "config": "", "pending": False, "ema": None, "loss": {}},
    **{"scheduler": {"step": 0}, "scaler": {}, "fingerprint": {"data": ""}},
    "windows": {"train": {}, "train_epoch": {}, "seen": [], "step": 0, "named": {}},
    "best": {"value": None, "saved": None, "last": None, "not_better": 0},
}
state["optimizer"] = {}
state["model"] = {f"layer{n}": torch.zeros(64, 1000) for n in range(4)}
saved = os.open(folder / "saved", os.O_WRONLY | os.O_CREAT)
saver = Saver(folder, keep_last=2)
for step in itertools.count(1):
    state["step"] = step
    torch._foreach_zero_(list(state["model"].values()))
    torch._foreach_add_(list(state["model"].values()), step)
    if naive:
        torch.save(state, names.path_of(folder, 1))
        torch.save(state, folder / "best.pt")
    else:
        saver.save(state, step, best=step % 2 == 0)
        torch._foreach_zero_(list(state["model"].values()))  # as training goes on
        saver.wait()
    os.pwrite(saved, b"%8d" % step, 0)
