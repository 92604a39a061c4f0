"""Data that note every sample they read, and send a signal at one of them."""

import os
import signal
import time

from torch.utils.data import Dataset

from ..engine.api import Data
from ..engine.datasets.synthetic import Synthetic


class Watched(Dataset):
    def __init__(self, inner):
        self.inner, self.read, self.owner = inner, 0, os.getpid()

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        self.read += 1
        if "READS" in os.environ:
            with open(os.environ["READS"], "a") as file:
                file.write(f"{index} ")
        if os.getpid() != self.owner and os.environ.get("READ") == str(self.read):
            os.kill(self.owner, getattr(signal, os.environ["SIGNAL"]))
            time.sleep(0.2)  # the run comes to need this sample
        return self.inner[index]


class WatchedData(Data):
    def __init__(self):
        self.data = Synthetic([1, 8, 8], 100, 10)
        self.info = self.data.info

    def split(self, name):
        part = self.data.split(name)
        return Watched(part) if name == "train" else part
