"""Samples that do not fit together, and data sets that cannot go to loader workers: one sentence each."""

import pytest
import torch
from helpers.batches import CPU
from torch.utils.data import Dataset


class Odd(Dataset):
    """Samples of 3 numbers, besides one."""

    def __init__(self, odd, place=5):
        self.odd, self.place = odd, place

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return (self.odd if index == self.place else torch.zeros(3)), index


@pytest.fixture
def first(engine):
    module, plan, rng = engine("batches.loader"), engine("batches.plan"), engine("rng")

    def first(dataset, workers=0, collate=None):
        own = plan.Plan(len(dataset), 8, shuffle=False)
        return next(module.Loader(dataset, own, collate, rng.Domain.SAMPLE, workers, CPU).read(0, 1))

    return first


@pytest.mark.parametrize(
    ("odd", "sentence"),
    [
        (torch.zeros(4), r"Sample 5 is \(4, int\), but sample 0 is \(3, int\)\. torch cannot join"),
        (None, r"Sample 5 is \(NoneType, int\)"),
        ({"x": torch.zeros(2, 3)}, r"Sample 5 is \(\{x: 2×3\}, int\)"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_samples_are_named(engine, first, odd, sentence, workers):
    with pytest.raises(engine("errors").UserError, match=sentence):
        first(Odd(odd), workers)


def test_one_sample_may_be_the_reason(engine, first):
    with pytest.raises(engine("errors").UserError, match=r"Sample 0 is \(object, int\)\. torch cannot"):
        first(Odd(object(), place=0))


def test_your_own_collate_is_yours(first):
    with pytest.raises(ZeroDivisionError):
        first(Odd(torch.zeros(4)), collate=lambda samples: 1 / 0)


HELD = {
    "generator": "(i for i in range(3))",
    "lambda": "lambda x: x",
    "handle": "open(__file__)",
}


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("held", HELD)
def test_what_cannot_be_sent_to_workers_is_one_sentence(train, workspace, method, held):
    (workspace / "digits/data/held.py").write_text(
        "import multiprocessing\n\nfrom .digits import Digits\n\n"
        f"multiprocessing.set_start_method({method!r}, True)\n\n\n"
        "class Held(Digits):\n    def split(self, name):\n        return Samples(super().split(name))\n\n\n"
        "class Samples:\n    def __init__(self, own):\n"
        f"        self.own, self.held = own, {HELD[held]}\n\n    def __len__(self):\n        return len(self.own)\n\n"
        "    def __getitem__(self, index):\n        return self.own[index]\n"
    )
    options = ("data._target_=.data.held.Held", "epochs=1", "logger=none", "model=mlp")
    done = train(*options, "workers=2")
    assert (done.code, done.out.count("\n")) == (2, 1), done.out
    assert "cannot be sent to loader workers" in done.last
    assert not list((workspace / "runs").glob("*/*"))
