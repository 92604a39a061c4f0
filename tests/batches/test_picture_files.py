"""Pictures in files and the same pictures in memory."""

import shutil

import numpy as np
import pytest
import torch
from helpers.batches import same
from helpers.runs import result, the_run


def test_pictures_in_memory_are_the_same_and_no_file_is_opened_again(folder, pictures, loader):
    expected = list(loader(folder().split("train")).read(0, 12))
    assert same(expected, list(loader(folder().split("train"), workers=2).read(0, 12)))
    kept = folder(True).split("train")
    shutil.rmtree(pictures)
    assert same(expected, list(loader(kept, workers=2).read(0, 12)))
    assert kept.canvases.dtype == np.uint8
    assert kept.canvases.shape == (96, 3, 16 + 2 * 3, 12 + 2 * 2)


def test_a_sample_by_itself_is_drawn_from_torchs_generator(folder):
    for pictures in (folder().split("train"), folder(True).split("train")):
        drawn = []
        for seed in (1, 2, 1):
            torch.manual_seed(seed)
            drawn.append(torch.stack([pictures[index][0] for index in range(20)]))
        assert torch.equal(drawn[0], drawn[2])
        assert not torch.equal(drawn[0], drawn[1])
        assert [pictures[index][1] for index in (0, 95)] == [0, 2]


def test_pictures_that_do_not_fit_are_refused(engine, folder, monkeypatch):
    def full(*_):
        raise MemoryError

    data = folder(True)
    monkeypatch.setattr(np, "empty", full)
    with pytest.raises(engine("errors").UserError, match=r"data.in_memory=true needs .* 96 pictures of train"):
        data.split("train")


def test_a_run_does_not_depend_on_where_pictures_are(train, workspace, pictures):
    options = (
        "data=image_folder",
        f"data.root='{pictures}'",
        "data.flip=true",
        "model=mlp",
        "epochs=2",
        "batch_size=16",
    )
    options = (*options, "logger=none", "log.curves=false")
    for name, more in (("files", ()), ("memory", ("data.in_memory=true", "data_on_device=true"))):
        done = train(*options, *more, f"name={name}")
        assert done.code == 0, done.out
        assert ("Reading a batch took" in done.out) == (name == "files"), "how many workers there are is told once"
    assert result(the_run(workspace, "files")) == result(the_run(workspace, "memory"))
    refused = train(*options, "data_on_device=true", "name=refused")
    assert refused.code == 2
    assert "data.in_memory=true" in refused.last


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_picture_is_named(train, workspace, pictures, workers):
    bad = pictures / "disc/7.png"
    bad.write_bytes(bad.read_bytes()[:-40])
    done = train("data=image_folder", f"data.root={pictures}", "batch_size=16", f"workers={workers}", "logger=none")
    assert done.code in (1, 2)
    assert str(bad) in done.last
    assert "Traceback" not in done.out
