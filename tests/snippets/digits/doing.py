"""A task that does something to its own run at step AT, so that a test can choose the moment."""

import contextlib
import os
import resource
import shutil
import time
from pathlib import Path

import torch

from .engine.run import checkpoint
from .task import Classification


class Doing(Classification):
    def training_step(self, model, batch, ctx):
        if ctx.step == int(os.environ.get("AT", -1)):
            while ctx.step > 10 and not list(Path("runs/stopped").glob("*/checkpoints/step-00000010.pt")):
                time.sleep(0.001)  # saves go on beside the training
            globals()[os.environ["DO"]](Path(os.environ.get("ON", ".")))
        return super().training_step(model, batch, ctx)


def fill(folder):
    """The disk that `folder` is on, but for FREE bytes."""
    with open(folder / ".filler", "wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            file.truncate(max(0, file.tell() - int(os.environ["FREE"])))


def fill_for_long(folder):
    """The same; and what a save that fails has written stays there while training logs on."""
    fill(folder)
    replacing = checkpoint.replacing

    @contextlib.contextmanager
    def late(path):
        with replacing(path) as temporary:
            try:
                yield temporary
            except BaseException:  # whatever ended the save: it is raised again
                time.sleep(1)
                raise

    checkpoint.replacing = late


def limit(pattern):
    """From now on, no file may grow beyond the one of this pattern, which is or becomes the largest."""
    (file,) = Path("runs/stopped").glob(f"*/{pattern}")
    if file.suffix:
        with open(file, "ab") as text:
            text.write(b"\n" * 300_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, resource.RLIM_INFINITY))


def unwritable(folder):
    (folder,) = Path("runs/stopped").glob("*/checkpoints")
    folder.chmod(0o555)


def exhaust(_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def vary(_):
    torch.zeros(2).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))


def vary_elsewhere(_):
    try:
        vary(_)
    except RuntimeError as error:
        raise RuntimeError(f"Caught RuntimeError in DataLoader worker process 0.\n{error}") from error


def move(folder):
    """Move the run to runs/moved."""
    (run,) = Path("runs/stopped").glob("[!.]*")
    run.rename(run.parent.parent / "moved")


def delete(pattern):
    for path in Path("runs/stopped").glob(str(pattern)):
        shutil.rmtree(path)
