"""The rendered project on pictures. A turn is an epoch with its validation. Its arguments are overrides."""

import time

import torch
from digits.engine.loop import Loop

from .ours import begin
from .turns import TURNS


class Epochs(Loop):
    began = 0.0

    def validate(self) -> None:
        super().validate()
        on_gpu = TURNS.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize()
        if self.began:
            peak = torch.cuda.max_memory_allocated() if on_gpu else 0
            TURNS.answer([time.perf_counter() - self.began, 0.0, peak])
            TURNS.wait()
        self.began = time.perf_counter()


if __name__ == "__main__":
    TURNS.step = lambda number=None: None  # type: ignore[method-assign]
    begin(Epochs, data=f"+data.size={TURNS.epoch * TURNS.batch}")
