"""Compare the samples of data.arrays with the arrays, in a project with numbers/, parts/ and line/."""

import numpy as np
from digits.data.arrays import Arrays

whole = np.load("numbers/x.npy"), np.load("numbers/y.npy")
options = {"x": "x", "y": "y", "val_fraction": 0.2, "test_fraction": 0.1}
for path, sizes in (("numbers", (210, 60, 30)), ("parts", (200, 60, 40)), ("parts.npz", (200, 60, 40))):
    data = Arrays(path, **options)
    rows = data.found[2]
    assert tuple(len(rows[name]) for name in ("train", "val", "test")) == sizes
    assert sorted(row for own in rows.values() for row in own) == list(range(300))
    mean, spread = whole[0][rows["train"]].mean(axis=0), whole[0][rows["train"]].std(axis=0)
    for name, own in rows.items():
        split = data.split(name)
        x, y = split.batch(np.arange(len(own)), np.zeros(len(own), np.uint64))
        np.testing.assert_allclose(x.numpy(), (whole[0][own] - mean) / spread, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(y.numpy(), whole[1][own], rtol=1e-5)
        assert (split[3][0] == x[3]).all()
        assert (split[3][1] == y[3]).all()
    held = [Arrays(path, **options, folds=4, fold=fold).found[2] for fold in range(4)]
    assert sorted(row for own in held for row in own["val"]) == sorted({*range(300)} - set(rows["test"]))
    assert max(len(own["val"]) for own in held) - min(len(own["val"]) for own in held) <= 1
assert isinstance(Arrays("numbers", **options).found[0].arrays[0], np.memmap)
line = Arrays("line", **options)
assert line.info["inputs"] == line.info["outputs"] == 1
assert line.split("train")[0][0].shape == (1,)
