"""Randomness as a function of keys.

Each random draw follows from a *key*: 64 bits made from the run's seed, a domain, and numbers that
identify the draw (epoch, sample, step …). The engine sets all generators to a key before it calls
user code. So a checkpoint stores no random state. Workers, validation and resuming cannot change
what other parts of the run draw.
"""

import random
from enum import IntEnum

import numpy as np
import torch

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class Domain(IntEnum):
    """The purpose of a key. Two domains never share a key."""

    INIT = 1
    ORDER = 2
    SAMPLE = 3
    BATCH = 4
    STEP = 5
    VALIDATION = 6
    PREDICTION = 7
    FIND_LR = 8
    HOOK = 9


def fold_in(key: int, number: int) -> int:
    """Return a new 64-bit key from `key` and `number`: one step of splitmix64 (Steele et al. 2014)."""
    z = (key ^ (number & _MASK)) + _GOLDEN & _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def make_key(seed: int, domain: Domain, *numbers: int) -> int:
    """Return the 64-bit key of one draw: `seed`, `domain` and `numbers` folded together."""
    key = fold_in(fold_in(0, seed), domain)
    for number in numbers:
        key = fold_in(key, number)
    return key


def fold_in_array(key: int, numbers: np.ndarray) -> np.ndarray:
    """Return `fold_in(key, n)` for each n of an integer array, uint64 of the same shape."""
    z = (numbers.astype(np.uint64) ^ np.uint64(key)) + np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def seed_all(key: int) -> None:
    """Set the generators of Python, numpy and torch (CPU and the current GPU) to `key`."""
    # torch and numpy use 32 bits of a seed on the CPU. All bits of a key are mixed, so any 32 will do.
    torch.default_generator.manual_seed(key)
    random.seed(key)
    np.random.seed(key & 0xFFFFFFFF)
    if torch.cuda.is_initialized():
        torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(key)


class Permutation:
    """A random order of 0 … `size` - 1. Any slice of it is computed without the rest.

    A Feistel network permutes pairs (a, b) that cover slightly more than `size` numbers. A result
    outside 0 … `size` - 1 is permuted again until it falls inside ("cycle walking", Black &
    Rogaway 2002). Memory does not depend on `size`.
    """

    ROUNDS = 6
    CHUNK = 1 << 14

    def __init__(self, size: int, key: int) -> None:
        self.size = size
        self._a = max(1, int(np.ceil(np.sqrt(size))))
        self._b = max(1, -(-size // self._a))
        self._keys = [fold_in(key, round_) for round_ in range(self.ROUNDS)]
        self._kept = -1, np.empty(0, dtype=np.int64)  # the begin of a chunk, and the chunk

    def _encrypt(self, x: np.ndarray) -> np.ndarray:
        left, right = np.divmod(x, self._b)
        for round_, key in enumerate(self._keys):
            if round_ % 2 == 0:
                noise = fold_in_array(key, right) % np.uint64(self._a)
                left = (left + noise.astype(np.int64)) % self._a
            else:
                noise = fold_in_array(key, left) % np.uint64(self._b)
                right = (right + noise.astype(np.int64)) % self._b
        return left * self._b + right

    def _chunk(self, begin: int) -> np.ndarray:
        """Return CHUNK places of the order. The next slice often needs the same ones."""
        if self._kept[0] != begin:
            x = self._encrypt(np.arange(begin, min(begin + self.CHUNK, self.size), dtype=np.int64))
            outside = np.flatnonzero(x >= self.size)
            while len(outside):
                x[outside] = self._encrypt(x[outside])
                outside = outside[x[outside] >= self.size]
            self._kept = begin, x
        return self._kept[1]

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Return places `start` … `stop` - 1 of the order, int64."""
        begins = range(start - start % self.CHUNK, min(stop, self.size), self.CHUNK)
        pieces = [self._chunk(begin)[max(0, start - begin) : stop - begin] for begin in begins]
        return np.concatenate(pieces) if len(pieces) != 1 else pieces[0]
