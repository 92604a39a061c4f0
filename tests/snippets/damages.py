"""Damage a checkpoint often, and count what becomes of the damaged files.

Each is refused, loaded with equal content (the damaged bytes meant nothing), or loaded with other content.
"""

import json
import random
import sys
from pathlib import Path

import torch
from digits.engine.run import checkpoint


def flip(rng, data, other):
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        data[place(rng, data)] ^= 1 << rng.randrange(8)


def hole(rng, data, other):
    start, size = place(rng, data), rng.choice((1, 4, 14, 16, 64, 512, 4096))
    size = min(size, len(data) - start)
    data[start : start + size] = bytes(size)


def noise(rng, data, other):
    start, size = place(rng, data), rng.choice((2, 16, 512))
    data[start : start + size] = rng.randbytes(min(size, len(data) - start))


def truncate(rng, data, other):
    del data[place(rng, data) :]


def append(rng, data, other):
    data += rng.choice((rng.randbytes(rng.randint(1, 70_000)), bytes(rng.randint(1, 4096)), other))


def insert(rng, data, other):
    start = place(rng, data)
    data[start:start] = rng.randbytes(rng.choice((1, 16, 512)))


def cut_out(rng, data, other):
    start = place(rng, data)
    del data[start : start + rng.choice((1, 16, 512))]


def swap(rng, data, other):
    size = rng.choice((16, 64, 512, 4096))
    a, b = sorted(rng.sample(range(len(data) // size), 2))
    a, b = slice(a * size, (a + 1) * size), slice(b * size, (b + 1) * size)
    data[a], data[b] = data[b], data[a]


def halves(rng, data, other):
    """The start of this checkpoint and the end of a later one of the same run."""
    start = rng.randrange(len(data) // 10, len(data) * 9 // 10)
    data[start:] = other[start:]


def empty(rng, data, other):
    data.clear()


def place(rng, data):
    """Anywhere; half of the time among what describes the records, which is at the end."""
    start = data.rindex(b"archive/data.pkl") - 46 if rng.random() < 0.5 else 0
    return rng.randrange(start, len(data))


def equal(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def plain(path):
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:
        raise checkpoint.Damaged(path, "refused") from error


one, another, what, load = sys.argv[1:]
load = plain if load == "plain" else checkpoint.load
data, other = Path(one).read_bytes(), Path(another).read_bytes()
truth = checkpoint.load(Path(one))
assert equal(truth, checkpoint.load(Path(one)))
assert not equal(truth, checkpoint.load(Path(another)))
kinds = (flip, flip, flip, hole, hole, noise, truncate, append, insert, cut_out, swap, halves, empty)
rng, target, seen = random.Random(0), Path("damaged.pt"), {}


def look(kind, damaged):
    target.write_bytes(damaged)
    try:
        outcome = "equal" if equal(load(target), truth) else "wrong"
    except checkpoint.Unusable:
        outcome = "refused"
    seen.setdefault(kind, {"refused": 0, "equal": 0, "wrong": 0})[outcome] += 1


if what == "bits":  # each one of the end: what describes the last records, and the archive
    for bit in range(8 * (len(data) - 300), 8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        look("bit", damaged)
else:
    for number in range(int(what)):
        kind, damaged = kinds[number % len(kinds)], bytearray(data)
        while damaged == data:
            kind(rng, damaged, other)
        look(kind.__name__, damaged)
print(json.dumps(seen))
