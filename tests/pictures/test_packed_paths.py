"""Paths of pictures are kept in one text, which takes little memory."""

import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import torch


@pytest.fixture
def samples(engine):
    return engine("datasets.windows").Samples


def test_a_million_paths(samples):
    names = [f"train/n{number % 1000:08}/n{number % 1000:08}_{number:07}.JPEG" for number in range(1_000_000)]
    packed = samples("/data/imagenet", names, torch.zeros(len(names), dtype=torch.int64))
    held = packed.text.nbytes + packed.ends.nbytes
    assert held < 1.3 * sum(map(len, names))
    assert packed[123_456] == f"/data/imagenet/{names[123_456]}"
    for name, value in vars(packed).items():
        assert isinstance(value, str | torch.Tensor), f"{name} is no tensor, which processes share"


def test_odd_names(samples):
    names = ["猫/ü x.png", "a\udcff.png", "", "b"]
    packed = samples("/pictures", names, torch.arange(4))
    for one in (packed, pickle.loads(pickle.dumps(packed)), pickle.loads(ForkingPickler.dumps(packed))):
        assert [one.name(index) for index in range(4)] == names
        assert list(one) == [f"/pictures/{name}" for name in names]
    with pytest.raises(IndexError):
        packed[4]
    assert list(samples("", [], torch.empty(0))) == []
