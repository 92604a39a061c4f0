"""One sample at a time, so that there are loader workers; one of them ends at sample KILLED."""

import os
import signal

import torch
from torch.utils.data import Dataset, get_worker_info

from .engine.api import Data


class Numbers(Dataset):
    def __len__(self):
        return 320

    def __getitem__(self, index):
        if get_worker_info() is not None and str(index) == os.environ.get("KILLED"):
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.randn(1, 4, 4), index % 10


class Samples(Data):
    info = {"shape": (1, 4, 4), "classes": 10}

    def split(self, name):
        return Numbers() if name in ("train", "val") else None

    def fingerprint(self):
        return open("version").read() if os.path.exists("version") else "1"
