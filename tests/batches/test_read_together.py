"""Data in memory are read many small batches at once, and no batch looks different for it."""

import sys
from collections import Counter

import pytest
import torch
from helpers.batches import same


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
