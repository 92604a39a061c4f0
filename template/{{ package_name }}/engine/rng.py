"""Randomness is a function, not a state.

Every random draw belongs to a *key*: 64 bits mixed from the run's seed, a domain and the numbers
that say which draw it is (epoch, sample, step …). Before user code runs, all generators are set to
its key. So nothing random has to be stored in a checkpoint, and no loader worker, validation or
resume can disturb what another part of the run draws.
"""

from __future__ import annotations

import random
from enum import IntEnum

import numpy as np
import torch

_MASK = (1 << 64) - 1

_GOLDEN = 0x9E3779B97F4A7C15


class Domain(IntEnum):
    """What a key is for; two domains never share a key."""

    INIT = 1
    ORDER = 2
    SAMPLE = 3
    BATCH = 4
    STEP = 5
    VALIDATION = 6
    PREDICTION = 7
    FIND_LR = 8


def mix(key: int, number: int) -> int:
    """Fold `number` into a 64-bit `key`: one step of splitmix64 (Steele et al. 2014)."""
    z = (key ^ (number & _MASK)) + _GOLDEN & _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def make_key(seed: int, domain: Domain, *numbers: int) -> int:
    """A 64-bit key for one draw, from the run's `seed`, the `domain` and what numbers the draw."""
    key = mix(mix(0, seed), domain)
    for number in numbers:
        key = mix(key, number)
    return key


def mix_array(key: int, numbers: np.ndarray) -> np.ndarray:
    """`mix(key, n)` for every n of an integer array; returns uint64 of the same shape."""
    z = (numbers.astype(np.uint64) ^ np.uint64(key)) + np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def seed_all(key: int) -> None:
    """Set Python's, numpy's and torch's generators (CPU and the current GPU) to `key`."""
    # The CPU generators keep 32 bits of a seed; the key is mixed, so any 32 of its bits will do.
    torch.default_generator.manual_seed(key)
    random.seed(key)
    np.random.seed(key & 0xFFFFFFFF)
    if torch.cuda.is_initialized():
        torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(key)


class Permutation:
    """A random order of 0 … `size` - 1 of which any slice can be had without the rest.

    A Feistel network over pairs (a, b) permutes a domain just above `size`, and a result outside
    is permuted again until it falls inside ("cycle walking"; Black & Rogaway 2002). Memory does
    not depend on `size`.
    """

    ROUNDS = 6
    CHUNK = 1 << 14

    def __init__(self, size: int, key: int) -> None:
        self.size = size
        self._a = max(1, int(np.ceil(np.sqrt(size))))
        self._b = max(1, -(-size // self._a))
        self._keys = [mix(key, round_) for round_ in range(self.ROUNDS)]
        self._chunk_start = -1
        self._chunk = np.empty(0, dtype=np.int64)

    def _encrypt(self, x: np.ndarray) -> np.ndarray:
        left, right = np.divmod(x, self._b)
        for round_, key in enumerate(self._keys):
            if round_ % 2 == 0:
                noise = mix_array(key, right) % np.uint64(self._a)
                left = (left + noise.astype(np.int64)) % self._a
            else:
                noise = mix_array(key, left) % np.uint64(self._b)
                right = (right + noise.astype(np.int64)) % self._b
        return left * self._b + right

    def compute(self, start: int, stop: int) -> np.ndarray:
        """Places `start` … `stop` - 1 of the order, int64, without a cache."""
        x = self._encrypt(np.arange(start, stop, dtype=np.int64))
        outside = np.flatnonzero(x >= self.size)
        while len(outside):
            x[outside] = self._encrypt(x[outside])
            outside = outside[x[outside] >= self.size]
        return x

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Places `start` … `stop` - 1 of the order, int64; neighbouring slices share their work."""
        stop = min(stop, self.size)
        pieces = []
        while start < stop:
            chunk_start = start - start % self.CHUNK
            if chunk_start != self._chunk_start:
                end = min(chunk_start + self.CHUNK, self.size)
                self._chunk, self._chunk_start = self.compute(chunk_start, end), chunk_start
            piece = self._chunk[start - chunk_start : stop - chunk_start]
            pieces.append(piece)
            start += len(piece)
        return np.concatenate(pieces) if len(pieces) != 1 else pieces[0]
