"""Batches of images are contiguous, unless `channels_last` or an older run asks for something else."""

import numpy as np
import pytest
import torch
from helpers.batches import CPU


@pytest.fixture
def read(engine):
    """`read(dataset, contiguous, workers, batch_size)`: the first images of 12 steps."""
    module, plan, rng = engine("batches.loader"), engine("batches.plan"), engine("rng")

    def read(dataset, contiguous=True, workers=0, batch_size=16):
        own = plan.Plan(len(dataset), batch_size)
        loader = module.Loader(dataset, own, None, rng.Domain.SAMPLE, workers, CPU, contiguous)
        return [batch[0] for batch in loader.read(0, 6)]

    return read


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 16])
def test_strides_are_those_of_a_new_tensor(read, arrays, channels, batch_size, workers):
    dataset = arrays(shape=(8, 8, channels))
    dataset.in_workers = bool(workers)
    for images in read(dataset, batch_size=batch_size, workers=workers):
        assert images.stride() == torch.empty(images.shape).stride()
        convolved = torch.nn.functional.conv2d(images, torch.ones(10, channels, 5, 5))
        assert convolved.view(-1, 160).shape == (batch_size, 160), "as in much teaching code"


def test_pixels_are_the_same_and_nothing_is_copied(read, arrays):
    dataset = arrays(shape=(8, 8, 1))
    for contiguous, before in zip(read(dataset), read(dataset, False), strict=True):
        assert torch.equal(contiguous, before)
        assert before.stride() == (64, 1, 8, 1)


def test_no_memory_is_copied(engine):
    images = torch.zeros(4, 5, 6)[..., None].permute(0, 3, 1, 2)
    assert engine("batches.loader").usual_strides(images).data_ptr() == images.data_ptr()
    last = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert engine("batches.loader").usual_strides(last).stride() == (60, 20, 5, 1)


@pytest.mark.parametrize(
    ("overrides", "is_nchw"),
    [((), True), (("channels_last=true",), False), (("contiguous=null",), False), (("contiguous=false",), False)],
)
def test_which_runs_ask_for_it(engine, project, monkeypatch, overrides, is_nchw):
    monkeypatch.chdir(project)
    config = engine("launch").compose("device=cpu", "batch_size=32", *overrides)
    assert config.is_nchw == is_nchw
    images, _ = engine("setup").build_parts(config).train.first()
    assert (images.stride() == (64, 64, 8, 1)) == is_nchw


def test_an_owners_view_after_a_convolution(train, workspace):
    """The usual line of teaching code works on the digits."""
    (workspace / "digits/models/lesson.py").write_text(
        "from torch import nn\n\n\nclass Lesson(nn.Module):\n    def __init__(self, classes: int) -> None:\n"
        "        super().__init__()\n        self.conv, self.fc = nn.Conv2d(1, 10, 5), nn.Linear(160, classes)\n\n"
        "    def forward(self, x):\n        return self.fc(self.conv(x).relu().view(-1, 160))\n"
    )
    options = ("model=.models.lesson.Lesson", "epochs=1", "logger=none")
    done = train(*options)
    assert done.code == 0, done.out
    assert train(*options, "contiguous=null").code == 2


def test_small_batches_are_read_together(read, arrays):
    """And each of them has a row for each sample."""
    dataset = arrays(shape=(8, 8, 1))
    assert len(read(dataset, batch_size=4)) == 6
    assert dataset.calls == [24]
    assert np.prod(read(dataset, batch_size=4)[0].shape) == 4 * 64
