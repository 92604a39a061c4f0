"""A permutation is one for every size and key, and keys decide every random draw."""

import random

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def rng(engine):
    return engine("rng")


def test_permutation_for_every_small_size(rng):
    for size in range(1, 200):
        order = rng.Permutation(size, key=size).slice(0, size)
        assert sorted(order.tolist()) == list(range(size))


def test_permutation_for_random_sizes_and_seeds(rng):
    draw = random.Random(0)
    for _ in range(60):
        size, key = draw.randrange(1, 60_000), draw.getrandbits(64)
        order = rng.Permutation(size, key).slice(0, size)
        assert np.array_equal(np.sort(order), np.arange(size))


def test_any_slice_without_the_rest(rng):
    draw = random.Random(1)
    for _ in range(40):
        size, key = draw.randrange(1, 50_000), draw.getrandbits(64)
        whole = rng.Permutation(size, key).slice(0, size)
        start = draw.randrange(size)
        stop = start + draw.randrange(20_000)
        assert np.array_equal(rng.Permutation(size, key).slice(start, stop), whole[start:stop])


def test_a_huge_permutation_costs_only_its_slice(rng):
    order = rng.Permutation(10**12, key=3)
    part = order.slice(10**11, 10**11 + 1000)
    assert len(set(part.tolist())) == 1000
    assert part.min() >= 0
    assert part.max() < 10**12


@pytest.mark.parametrize("size", [2, 3, 5, 10, 1297])
def test_every_sample_gets_to_every_place(rng, size):
    runs = 4000
    first = np.array([rng.Permutation(size, rng.make_key(0, rng.Domain.ORDER, e)).slice(0, 1)[0] for e in range(runs)])
    counts = np.bincount(first, minlength=size)
    chi2 = ((counts - runs / size) ** 2 / (runs / size)).sum()
    # The statistic has mean size - 1 and variance 2 (size - 1); five standard deviations.
    assert chi2 < size - 1 + 5 * np.sqrt(2 * (size - 1)) + 5


def test_neighbours_are_not_correlated(rng):
    order = rng.Permutation(20_000, rng.make_key(7, rng.Domain.ORDER, 0)).slice(0, 20_000).astype(float)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 5 / np.sqrt(20_000)
    assert abs(np.corrcoef(order, np.arange(20_000))[0, 1]) < 5 / np.sqrt(20_000)


def test_epochs_differ_and_seeds_differ(rng):
    keys = {rng.make_key(s, d, e, i) for s in range(5) for d in rng.Domain for e in range(5) for i in range(50)}
    assert len(keys) == 5 * len(rng.Domain) * 5 * 50


def test_low_bits_of_keys_differ_too(rng):
    """Torch's CPU generator keeps 32 bits of a seed."""
    keys = {rng.make_key(0, rng.Domain.SAMPLE, epoch, 0) & 0xFFFFFFFF for epoch in range(1000)}
    assert len(keys) == 1000


def test_fold_in_array_is_fold_in(rng):
    numbers = np.array([0, 1, 5, 2**40])
    assert [int(x) for x in rng.fold_in_array(12345, numbers)] == [rng.fold_in(12345, int(n)) for n in numbers]


def test_seed_all_sets_every_generator(rng):
    def draw():
        return torch.rand(3).tolist(), random.random(), np.random.rand(3).tolist()

    rng.seed_all(rng.make_key(0, rng.Domain.STEP, 1))
    first = draw()
    rng.seed_all(rng.make_key(0, rng.Domain.STEP, 2))
    assert draw() != first
    rng.seed_all(rng.make_key(0, rng.Domain.STEP, 1))
    assert draw() == first
