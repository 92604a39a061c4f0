"""`data.subset`: a fixed part of the training set."""

from itertools import chain

import numpy as np
import pytest
import torch
from helpers.runs import assert_stopped_as_whole

SHORT = ("logger=none", "model=mlp", "workers=0")


def samples(parts, epochs: int = 1) -> list[list[int]]:
    """The samples of each of the first epochs, in order."""
    plan = parts.train.plan
    steps = [plan.samples(step).tolist() for step in range(epochs * plan.steps)]
    return [list(chain(*steps[e * plan.steps : (e + 1) * plan.steps])) for e in range(epochs)]


@pytest.fixture
def parts(looped):
    return lambda *overrides: looped(*SHORT, "batch_size=10", *overrides).parts


def test_it_is_the_same_for_every_seed_and_grows(parts):
    whole = parts().train.plan.size
    first, second = samples(parts("data.subset=100"), epochs=2)
    assert len(set(first)) == 100
    assert set(first) == set(second)
    assert first != second  # in another order
    assert max(first) > 200  # from anywhere in the training set
    (other_seed,) = samples(parts("data.subset=100", "seed=3"))
    assert set(other_seed) == set(first)
    assert other_seed != first
    assert set(first) < set(samples(parts("data.subset=200"))[0])
    assert parts("data.subset=0.1").train.plan.size == round(whole / 10)
    assert parts("data.subset=1.0").train.plan.size == parts(f"data.subset={whole}").train.plan.size == whole
    assert parts("data.subset=null").train.plan.subset is None


@pytest.mark.parametrize("data", ["digits", "synthetic"])
def test_a_batch_holds_these_samples_as_they_always_are(parts, engine, data):
    made = parts(f"data={data}", "data.subset=30", *(["data.shift=2"] if data == "digits" else []))
    rng = engine("rng")
    dataset, plan = made.train.reader.dataset, made.train.plan
    key = rng.make_key(0, rng.Domain.SAMPLE, 0)
    kept = np.sort(plan.samples(0))
    assert set(kept) <= set(plan.subset.tolist())
    for step, (images, labels) in enumerate(made.train.read(0, plan.steps)):
        indices = plan.samples(step)
        expected = dataset.batch(indices, rng.fold_in_array(key, indices))
        assert torch.equal(images, expected[0])
        assert torch.equal(labels, expected[1])


def test_validation_is_whole(parts):
    assert parts("data.subset=30").val.plan.size == parts().val.plan.size


def test_a_run_on_a_subset_resumes_exactly(train, workspace):
    options = (*SHORT, "data.subset=150", "batch_size=16", "epochs=4", "log.every=1", "mix=mixup")
    done = train(*options, "name=whole")
    assert done.code == 0, done.out
    assert " 150 training and " in done.out
    for _ in range(2):
        assert train(*options, "name=stopped", "resume=auto", "max_minutes=0.00001").code == 75
    assert train(*options, "name=stopped", "resume=auto").code == 0
    assert_stopped_as_whole(workspace)


@pytest.mark.parametrize("wrong", ["0", "-3", "1.5", "0.0", "100000", "[1]", "true", "half"])
def test_what_is_no_part(train, workspace, wrong):
    done = train(*SHORT, f"data.subset={wrong}")
    assert done.code == 2, done.out
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert "data.subset=" in done.last
    assert not (workspace / "runs").exists()


OWN = """
import torch
from torch.utils.data import TensorDataset

from ..engine.api import Data


class Own(Data):
    info = {"classes": 10, "shape": (1, 8, 8)}

    def __init__(self, own_order: bool = False ARGUMENT):
        self.own_order = own_order

    def split(self, name):
        return TensorDataset(torch.randn(99, 1, 8, 8), torch.zeros(99).long())
"""
ORDER = "\n    def order(self, epoch, key):\n        return torch.arange(99).numpy() if self.own_order else None\n"


def test_own_data(train, workspace):
    """It works for any data, unless they have an order or an argument `subset` of their own."""
    path = workspace / "digits/data/own.py"
    path.write_text(OWN.replace(" ARGUMENT", "") + ORDER)
    done = train(*SHORT, "data=.data.own.Own", "data.subset=64", "max_steps=1")
    assert " 64 training and 99 " in done.out, done.out
    done = train(*SHORT, "data=.data.own.Own", "data.subset=64", "data.own_order=true")
    assert (done.code, "own order" in done.last) == (2, True), done.out
    path.write_text(OWN.replace(" ARGUMENT", ", subset: str = 'a'"))
    done = train(*SHORT, "data=.data.own.Own", "data.subset=b", "max_steps=1")
    assert " 99 training and 99 " in done.out, done.out
