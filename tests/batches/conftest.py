"""Fixtures: data in memory, a folder of pictures, and a loader of either."""

import numpy as np
import pytest
from helpers.batches import CPU, DRAW

FOLDER = dict(val_fraction=0.2, size=[16, 12], max_size=16, channels=3, shift=0.2, flip=True, mean=0.4, std=0.3)


@pytest.fixture
def arrays(engine):
    """`arrays(n, shape)`: pictures in memory with every augmentation, whose `calls` note the samples of each call."""

    class Counted(engine("datasets.arrays").ArrayImages):
        def batch(self, indices, keys):
            self.calls.append(len(indices))
            return super().batch(indices, keys)

    def arrays(n=400, shape=(8, 8, 3), shift=2):
        images = DRAW.integers(0, 256, (n, *shape), dtype=np.uint8)
        data = Counted(images, np.arange(n), mean=0.3, std=0.4, shift=shift, flip=True)
        data.calls = []
        return data

    return arrays


@pytest.fixture
def loader(engine):
    """`loader(dataset, batch_size, workers, **plan)`: a Loader of a training set on the CPU."""
    data, plan, rng = engine("batches.loader"), engine("batches.plan"), engine("rng")

    def loader(dataset, batch_size=16, workers=0, **options):
        its_plan = plan.Plan(len(dataset), batch_size, **options)
        return data.Loader(dataset, its_plan, None, rng.Domain.SAMPLE, workers, CPU)

    return loader


@pytest.fixture
def folder(engine, pictures):
    """`folder(in_memory)`: the pictures as a data set."""
    return lambda in_memory=False: engine("datasets.image_folder").ImageFolder(
        str(pictures), in_memory=in_memory, **FOLDER
    )
