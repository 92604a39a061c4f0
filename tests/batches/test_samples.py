"""Any data set: the key, the thread and the loader worker of a sample."""

import pytest
import torch
from helpers.batches import Numbers, same
from torch.utils.data import Dataset, StackDataset, Subset


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
    monkeypatch.setattr(data, "WORLD_SIZE", 12)
    monkeypatch.setattr(data, "LOCAL_WORLD_SIZE", 3)
    unknown.seconds = None
    assert unknown.worker_count(1000) == 2, "processes of one host share its cores"
    given = loader(Numbers(), workers=3)
    given.first()
    assert given.seconds > 0
    assert given.worker_count(1) == 3
    assert loader(arrays(), workers=3).worker_count(1000) == 0
    assert loader(folder().split("train"), workers=3).worker_count(1000) == 3
    assert loader(folder(True).split("train"), workers=3).worker_count(1000) == 0
