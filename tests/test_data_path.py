"""How batches reach the model. Calls, copies and files are counted, never seconds."""

import contextlib
import shutil
import sys
import tracemalloc
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.machine import NEEDS_GPU, ON_GPU
from helpers.runs import result, the_run
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset, StackDataset, Subset

CPU = torch.device("cpu")
DRAW = np.random.default_rng(0)
FOLDER = dict(val_fraction=0.2, size=[16, 12], max_size=16, channels=3, shift=0.2, flip=True, mean=0.4, std=0.3)


@pytest.fixture
def arrays(engine):
    """`arrays(n, shape)`: pictures in memory with every augmentation, whose `calls` note the samples of each call."""

    class Counted(engine("datasets.arrays").ArrayImages):
        def batch(self, indices, keys):
            self.calls.append(len(indices))
            return super().batch(indices, keys)

    def arrays(n=400, shape=(8, 8, 3), shift=2):
        images = DRAW.integers(0, 256, (n, *shape), dtype=np.uint8)
        data = Counted(images, np.arange(n), mean=0.3, std=0.4, shift=shift, flip=True)
        data.calls = []
        return data

    return arrays


@pytest.fixture
def loader(engine):
    """`loader(dataset, batch_size, workers, **plan)`: a Loader of a training set on the CPU."""
    data, plan, rng = engine("batches.loader"), engine("batches.plan"), engine("rng")

    def loader(dataset, batch_size=16, workers=0, **options):
        its_plan = plan.Plan(len(dataset), batch_size, **options)
        return data.Loader(dataset, its_plan, None, rng.Domain.SAMPLE, workers, CPU)

    return loader


def same(a, b):
    return len(a) == len(b) and all(
        torch.equal(p, q) for x, y in zip(a, b, strict=True) for p, q in zip(x, y, strict=True)
    )


# ---------------------------------------------------------------- in memory


@pytest.mark.parametrize(("batch_size", "accumulate"), [(16, 1), (10, 1), (7, 1), (12, 3), (400, 1)])
def test_small_batches_are_read_together_and_are_the_same(arrays, loader, batch_size, accumulate):
    data = arrays()
    options = dict(accumulate=accumulate, drop_last=False)
    together, single = loader(data, batch_size, **options), loader(data, batch_size, **options)
    steps = 2 * together.plan.steps
    ahead = list(together.read(0, steps))
    assert data.calls == [400, 400], "one call for each epoch of a small set"
    del data.sample_bytes
    alone = list(single.read(0, steps))
    assert len(data.calls) == 2 + len(alone)
    assert same(ahead, alone)
    for batch, other in zip(ahead, alone, strict=True):
        assert [t.stride() for t in batch] == [t.stride() for t in other]
        assert all(t.data_ptr() % 64 == 0 for t in batch), "aligned like memory of its own"
    data.sample_bytes = 1
    assert same(list(together.read(3, steps)), alone[3 * accumulate :]), "wherever it begins"


def test_a_tuple_of_something_else_keeps_its_form(arrays, loader):
    data, plain = arrays(), arrays()
    data.batch = lambda indices, keys: (dict(zip("ab", plain.batch(indices, keys), strict=True)), None)
    for both, nothing in loader(data, 10).read(0, 40):
        assert list(both) == ["a", "b"]
        assert nothing is None


@pytest.mark.parametrize("form", [tuple, list, lambda rows: dict(zip("ab", rows, strict=True)), lambda rows: ()])
def test_batches_of_any_form_are_read_together(arrays, loader, form):
    data, plain = arrays(), arrays()
    data.batch = lambda indices, keys: form(plain.batch(indices, keys))
    together = list(loader(data, 10).read(0, 40))
    assert plain.calls == [400]
    expected = [form(batch) for batch in loader(plain, 10).read(0, 40)]
    assert list(map(type, together)) == list(map(type, expected))
    values = [batch.values() if isinstance(batch, dict) else batch for batch in together]
    assert same([list(v) for v in values], [list(b.values() if isinstance(b, dict) else b) for b in expected])


def test_a_batch_may_be_changed_in_place(arrays, loader):
    weight = torch.ones(1, requires_grad=True)
    for images, labels in loader(arrays(), 32).read(0, 12):
        before = labels._version
        labels.sub_(1)
        assert labels._version == before + 1, "nobody else's version counts"
        (images.mul_(weight).sum() + images.sum()).backward()


def test_rows_that_do_not_add_up_are_refused(engine, arrays, loader):
    data = arrays()
    data.batch = lambda indices, keys: (torch.zeros(len(indices), 2), torch.zeros(10))
    with pytest.raises(engine("api").UserError, match=r"gave a tensor of shape \[10\] for 400 samples\. With sample_b"):
        list(loader(data, 10).read(0, 40))


def test_what_is_read_ahead_has_a_limit(arrays, loader):
    data = arrays(9000, (2, 2, 1), shift=0)
    list(loader(data, 10).read(0, 900))
    assert max(data.calls) <= 4096
    assert sum(data.calls) == 9000
    data.calls.clear()
    data.sample_bytes = 1 << 20
    list(loader(data, 2).read(0, 4))
    assert data.calls == [4, 4]
    data.calls.clear()
    next(loader(data, 1000, accumulate=500).read(0, 4))
    assert data.calls == [4], "micro-batches are small so that memory suffices"


def test_python_calls_of_a_batch(arrays, loader):
    """Count the Python functions that each of 100 small batches calls."""
    reader = loader(arrays(1600, (8, 8, 1)), 16).read(0, 100)
    next(reader)
    calls = Counter()
    sys.setprofile(lambda frame, event, _: calls.update([event]))
    try:
        count = sum(1 for _ in reader)
    finally:
        sys.setprofile(None)
    assert count == 99
    assert calls["call"] <= 7 * count, calls
    assert calls["c_call"] <= 4 * count, calls


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


# ---------------------------------------------------------------- picture files


@pytest.fixture
def folder(engine, pictures):
    """`folder(in_memory)`: the pictures as a data set."""
    return lambda in_memory=False: engine("datasets.image_folder").ImageFolder(
        str(pictures), in_memory=in_memory, **FOLDER
    )


def test_pictures_in_memory_are_the_same_and_no_file_is_opened_again(folder, pictures, loader):
    expected = list(loader(folder().split("train")).read(0, 12))
    assert same(expected, list(loader(folder().split("train"), workers=2).read(0, 12)))
    kept = folder(True).split("train")
    shutil.rmtree(pictures)
    assert same(expected, list(loader(kept, workers=2).read(0, 12)))
    assert kept.canvases.dtype == np.uint8
    assert kept.canvases.shape == (96, 3, 16 + 2 * 3, 12 + 2 * 2)


def test_a_sample_by_itself_is_drawn_from_torchs_generator(folder):
    for pictures in (folder().split("train"), folder(True).split("train")):
        drawn = []
        for seed in (1, 2, 1):
            torch.manual_seed(seed)
            drawn.append(torch.stack([pictures[index][0] for index in range(20)]))
        assert torch.equal(drawn[0], drawn[2])
        assert not torch.equal(drawn[0], drawn[1])
        assert [pictures[index][1] for index in (0, 95)] == [0, 2]


def test_pictures_that_do_not_fit_are_refused(engine, folder, monkeypatch):
    def full(*_):
        raise MemoryError

    data = folder(True)
    monkeypatch.setattr(np, "empty", full)
    with pytest.raises(engine("errors").UserError, match=r"data.in_memory=true needs .* 96 pictures of train"):
        data.split("train")


def test_a_run_does_not_depend_on_where_pictures_are(train, workspace, pictures):
    options = (
        "data=image_folder",
        f"data.root='{pictures}'",
        "data.flip=true",
        "model=mlp",
        "epochs=2",
        "batch_size=16",
    )
    options = (*options, "logger=none", "log.curves=false")
    for name, more in (("files", ()), ("memory", ("data.in_memory=true", "data_on_device=true"))):
        done = train(*options, *more, f"name={name}")
        assert done.code == 0, done.out
        assert ("Reading a batch took" in done.out) == (name == "files"), "how many workers there are is told once"
    assert result(the_run(workspace, "files")) == result(the_run(workspace, "memory"))
    refused = train(*options, "data_on_device=true", "name=refused")
    assert refused.code == 2
    assert "data.in_memory=true" in refused.last


# ---------------------------------------------------------------- everything else


class Numbers(Dataset):
    """Samples of one random number; `calls` notes what was asked for."""

    def __init__(self):
        self.calls = []

    def __len__(self):
        return 40

    def __getitem__(self, index):
        self.calls.append(index)
        return torch.rand(2) + index


class Fetching(Numbers):
    def __getitems__(self, indices):
        self.calls.append(indices)
        return [torch.rand(2) + index for index in indices]


def test_getitems_is_called_once_for_a_batch_and_keyed(loader):
    data = Fetching()
    whole = list(loader(data, 8).read(0, 10))
    assert [len(call) for call in data.calls] == [8] * 10
    assert len(torch.cat(whole).unique()) == 800 // 5
    torch.manual_seed(5)
    assert torch.equal(torch.cat(whole[7:]), torch.cat(list(loader(data, 8).read(7, 10))))
    assert torch.equal(torch.cat(whole), torch.cat(list(loader(data, 8, workers=2).read(0, 10))))
    data.calls.clear()
    list(loader(Subset(data, range(24)), 8).read(0, 3))
    assert [len(call) for call in data.calls] == [8] * 3


@pytest.mark.parametrize("wrap", [lambda data: Subset(data, range(40)), lambda data: StackDataset(x=data)])
def test_a_wrapped_sample_keeps_its_own_key(loader, wrap):
    """torch's wrappers have `__getitems__` too. A sample must not depend on its batch because of that."""
    data = wrap(Numbers())
    read = [list(loader(data, size).read(0, 40 // size)) for size in (8, 5)]
    by_eight, by_five = (torch.cat([b["x"] if isinstance(b, dict) else b for b in batches]) for batches in read)
    assert torch.equal(by_eight, by_five)


class Standardized(Dataset):
    """Whose sums depend on the number of threads."""

    def __init__(self):
        self.pictures = torch.rand(8, 3, 300, 300, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        picture = self.pictures[index]
        return (picture - picture.mean()) / picture.std(), torch.get_num_threads()


def test_samples_are_made_in_one_thread_wherever_they_are_made(loader):
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        here, there = (list(loader(Standardized(), 4, workers).read(0, 2)) for workers in (0, 1))
        first = loader(Standardized(), 4).first()
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert same(here, there)
    assert same([here[0]], [first])
    assert {n for _, threads in here for n in threads.tolist()} == {1}


def test_how_many_workers(engine, arrays, loader, folder, monkeypatch):
    data = engine("batches.loader")
    monkeypatch.setattr(data.os, "sched_getaffinity", lambda _: range(6), raising=False)
    unknown = loader(Numbers(), workers=None)
    assert unknown.worker_count(1000) == 6
    for seconds, steps, workers in ((0.05, 1000, 6), (0.05, 4, 0), (0.0005, 10**6, 0)):
        unknown.seconds = seconds
        assert unknown.worker_count(steps) == workers, (seconds, steps)
    monkeypatch.setattr(data, "WORLD_SIZE", 3)
    unknown.seconds = None
    assert unknown.worker_count(1000) == 2, "processes share the cores"
    given = loader(Numbers(), workers=3)
    given.first()
    assert given.seconds > 0
    assert given.worker_count(1) == 3
    assert loader(arrays(), workers=3).worker_count(1000) == 0
    assert loader(folder().split("train"), workers=3).worker_count(1000) == 3
    assert loader(folder(True).split("train"), workers=3).worker_count(1000) == 0


# ---------------------------------------------------------------- to a GPU


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
