"""Batches on their way to a GPU."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from helpers.batches import CPU
from helpers.machine import NEEDS_GPU


class FakeStream:
    """Notes what is asked of the GPU."""

    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def record_event(self):
        self.notes.append(("copied", self.copies))
        return self.copies

    def wait_event(self, event):
        self.notes.append(("waits for", event))


def test_the_next_batch_is_copied_before_this_one_is_computed_with(engine, monkeypatch):
    device, notes = engine("machine.device"), []
    side, main = FakeStream("side", notes), FakeStream("main", notes)
    side.copies = -1

    def move(batch, device):
        assert active == [side], "copies are made on their own stream"
        side.copies += 1
        return batch

    active: list[FakeStream] = []
    made: list[FakeStream] = []

    @contextlib.contextmanager
    def on(stream):
        active.append(stream)
        yield
        active.pop()

    fake = SimpleNamespace(
        Stream=lambda device: made.append(side) or side, stream=on, current_stream=lambda device: main, Event=object
    )
    device._copying_stream.cache_clear()
    monkeypatch.setattr(torch, "cuda", fake)
    monkeypatch.setattr(device, "to_device", move)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, s: notes.append((s.name, int(tensor))))
    seen = []
    for batch in device.prefetched(({"x": torch.tensor(n)} for n in range(3)), CPU):
        notes.append(("computes with", int(batch["x"])))
        seen.append(int(batch["x"]))
    assert seen == [0, 1, 2]
    assert notes == [
        *[("copied", 0), ("copied", 1), ("waits for", 0), ("main", 0), ("computes with", 0)],
        *[("copied", 2), ("waits for", 1), ("main", 1), ("computes with", 1)],
        *[("waits for", 2), ("main", 2), ("computes with", 2)],
    ]
    assert len(list(device.prefetched([{"x": torch.tensor(0)}], CPU))) == len(made) == 1, "torch keeps memory for each"
    device._copying_stream.cache_clear()


@pytest.mark.cuda
@NEEDS_GPU
def test_batches_arrive_whole_on_a_gpu(engine, arrays):
    data, plan, rng = engine("batches.loader"), engine("batches.plan"), engine("rng")
    pictures, gpu = arrays(2000, (32, 32, 3)), torch.device("cuda", 0)
    its_plan = plan.Plan(2000, 64)
    here, there, kept = (
        data.Loader(dataset, its_plan, None, rng.Domain.SAMPLE, 0, device)
        for dataset, device in ((pictures, CPU), (pictures, gpu), (pictures.to(gpu), gpu))
    )
    expected = list(here.read(0, 60))
    for loader in (there, kept):
        for (images, labels), (a, b) in zip(loader.read(0, 60), expected, strict=True):
            torch.mm(torch.rand(2000, 2000, device=gpu), torch.rand(2000, 2000, device=gpu))  # keeps the GPU busy
            assert images.is_cuda
            assert torch.equal(images.cpu(), a)
            assert torch.equal(labels.cpu(), b)
