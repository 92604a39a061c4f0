"""The writer is closed inside the loop. Each value after it opens a new event file."""

import tempfile
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter


def train(close_inside: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer = SummaryWriter(folder)
        for epoch in range(12):
            writer.add_scalar("loss", 1 / (epoch + 1), epoch)
            if close_inside:
                writer.close()  # the mistake
        writer.close()
        files = len(list(Path(folder).iterdir()))
        events = EventAccumulator(folder).Reload().Scalars("loss")  # what TensorBoard reads
        print("closed", "inside" if close_inside else "after ", "the loop:", files, "event files")
        print("epochs in the curve:", *[event.step for event in events])


train(close_inside=True)
train(close_inside=False)
