"""Pictures in memory: how often they are copied, and the same batches on a device."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest
import torch
from helpers.batches import CPU, DRAW
from helpers.machine import ON_GPU
from torch.utils._python_dispatch import TorchDispatchMode


def test_copies_of_a_sample(arrays):
    """For each batch, bytes are gathered, half of them are mirrored, and floats are passed over three times."""
    data = arrays(400, (32, 32, 3))
    indices, keys = np.arange(128), DRAW.integers(0, 1 << 64, 128, dtype=np.uint64)

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            returned = function(*args, **(kwargs or {}))
            name = function.overloadpacket.__name__
            if name not in ("lift_fresh", "detach") and returned.numel() > 1000:  # those two copy nothing
                seen[name] += 1
            return returned

    seen = Counter()
    with Count():
        data.batch(indices, keys)
    assert seen == {"flip": 1, "_to_copy": 1, "sub_": 1, "mul_": 1}
    tracemalloc.start()
    try:
        data.batch(indices, keys)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * 128 * 3 * 32 * 32, "numpy holds a batch of bytes, and those of it that are mirrored"


@pytest.mark.parametrize("shape", [(8, 9, 3), (6, 6, 1)])
@pytest.mark.parametrize("device", ["cpu", ON_GPU])
@pytest.mark.parametrize("shift", [0, 2])
def test_batches_made_on_a_device_are_the_same(arrays, shape, device, shift):
    data = arrays(50, shape, shift)
    there = data.to(torch.device(device))
    indices, keys = DRAW.integers(0, 50, 300), DRAW.integers(0, 1 << 64, 300, dtype=np.uint64)
    (a, b), (c, d) = data.batch(indices, keys), there.batch(indices, keys)
    assert c.device.type == device
    assert torch.equal(a, c.cpu())
    assert torch.equal(b, d.cpu())
    assert a.stride() == c.stride(), "convolutions choose by them"
    assert a.stride(1) == (1 if shape[2] == 1 else shape[0] * shape[1]), "grey pictures are NHWC as well"
    assert (len(there), there.sample_bytes) == (len(data), data.sample_bytes)


def test_what_cannot_be_kept_on_a_device_is_refused(engine, arrays, loader, monkeypatch):
    on_device, error = engine("batches.loader").on_device, engine("errors").UserError
    with pytest.raises(error, match="data_on_device=true needs data with a method"):
        on_device(torch.utils.data.TensorDataset(torch.zeros(3)), CPU)
    data = arrays()
    assert on_device(data, CPU) is data

    def full(device):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(data, "to", full)
    with pytest.raises(error, match="The data do not fit on the GPU"):
        on_device(data, torch.device("cuda"))
