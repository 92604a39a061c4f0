"""A thread writes checkpoints from a copy, one at a time. Training is told of a failure."""

import errno
import threading
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers import snippets


@pytest.fixture
def saver(engine, tmp_path):
    return engine("run.saver").Saver(tmp_path, keep_last=2)


REST = {
    **{"format": 1, "interface": 1, "epoch": 1, "config": "", "pending": False, "ema": None, "loss": {}},
    **{"scheduler": {"step": 0}, "scaler": {}, "fingerprint": {"data": ""}},
    "windows": {"train": {}, "train_epoch": {}, "seen": [], "step": 0, "named": {}},
    "best": {"value": None, "saved": None, "last": None, "not_better": 0},
}
"""What a checkpoint holds besides its step and its tensors."""


def state(value: float) -> dict:
    return {
        **REST,
        "step": int(value),
        "model": {"weight": torch.full((3, 4), value), "bias": torch.full((), value)},
        "optimizer": {"weight": {"moments": [torch.full((2,), value)], "betas": (0.9, 0.95)}},
    }


@pytest.fixture
def held(engine, monkeypatch):
    """Writing waits for the event, so that a test can look at what happens beside it."""
    event, names, save = threading.Event(), [], engine("run.checkpoint").save

    def slow(state, path, best):
        names.append(f"{path.name} best" if best else path.name)
        assert event.wait(30)
        save(state, path, best)

    monkeypatch.setattr(engine("run.checkpoint"), "save", slow)
    return event, names


def test_training_goes_on_while_the_copy_is_written(saver, held, engine, tmp_path):
    event, _ = held
    first = state(1.0)
    saver.save(first, 1)
    assert saver.thread.is_alive()
    for tensor in (*first["model"].values(), *first["optimizer"]["weight"]["moments"]):
        tensor.add_(5)  # as the next optimizer step does
    first["optimizer"]["weight"]["moments"].append(None)
    assert not (tmp_path / "step-00000001.pt").exists()
    event.set()
    saver.wait()
    assert saver.thread is None
    loaded = engine("run.checkpoint").load(tmp_path / "step-00000001.pt")
    expected = state(1.0)
    assert torch.equal(loaded["model"]["weight"], expected["model"]["weight"])
    assert torch.equal(loaded["model"]["bias"], expected["model"]["bias"])
    assert len(loaded["optimizer"]["weight"]["moments"]) == 1
    assert torch.equal(loaded["optimizer"]["weight"]["moments"][0], torch.ones(2))
    assert loaded["optimizer"]["weight"]["betas"] == (0.9, 0.95)


class Pair(NamedTuple):
    mean: torch.Tensor
    count: int


def test_a_named_tuple_is_saved_as_a_plain_container(saver, engine, tmp_path):
    """A checkpoint with a class in it could not be loaded: that could run code."""
    saver.save({**state(1.0), "optimizer": {"weight": {"pairs": [Pair(torch.ones(2), 3)]}}}, 1)
    saver.wait()
    (loaded,) = engine("run.checkpoint").load(tmp_path / "step-00000001.pt")["optimizer"]["weight"]["pairs"]
    assert type(loaded) is tuple
    assert loaded[0].tolist() == [1, 1]
    assert loaded[1] == 3


def test_a_number_of_numpy_is_refused(saver, engine, tmp_path):
    """It is a float, too. But a file with it could not be loaded, so it must not replace one that can."""
    values = {"moments": [{"scale": np.float64(2)}]}
    with pytest.raises(engine("errors").UserError, match="optimizer/weight/moments/0/scale is of type float64"):
        saver.save({**state(1.0), "optimizer": {"weight": values}}, 1)
    saver.wait()
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_among_the_facts_of_the_data(engine):
    """`x.mean()` of an array is one. A checkpoint with it could not be loaded."""
    facts = {"mean": np.float64(0.5), "classes": np.int64(3), "std": [np.float32(1), True], "table": torch.ones(2)}
    plain = engine("build.parts").plain(facts)
    assert plain == {"mean": 0.5, "classes": 3, "std": [1.0, True]}
    assert [type(value) for value in (plain["mean"], plain["classes"], *plain["std"])] == [float, int, float, bool]


def test_never_two_at_once_and_in_order(saver, held, engine, tmp_path):
    event, names = held
    saver.save(state(1.0), 1)
    second = threading.Thread(target=lambda: saver.save(state(2.0), 2, best=True))
    second.start()
    second.join(0.2)
    assert second.is_alive(), "the second save must wait for the first"
    assert names == ["step-00000001.pt"]
    event.set()
    second.join()
    saver.wait()
    assert names == ["step-00000001.pt", "step-00000002.pt best"]
    for step in (3, 4):
        saver.save(state(step), step)
    saver.wait()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "step-00000003.pt", "step-00000004.pt"]
    assert engine("run.checkpoint").load(tmp_path / "best.pt")["step"] == 2


def test_buffers_are_kept(saver):
    def places():
        return {place: buffer.data_ptr() for place, buffer in saver._buffers.items()}

    saver.save(state(1.0), 1)
    before = places()
    assert len(before) == 3
    saver.save(state(2.0), 2)
    assert places() == before
    grown = state(3.0)
    grown["model"]["weight"] = torch.zeros(7, 7)
    saver.save(grown, 3)
    saver.wait()
    assert places().keys() == before.keys()
    assert len(set(places().items()) & set(before.items())) == 2


def test_a_failed_write_is_raised_by_the_next_call_once(saver, engine, tmp_path, monkeypatch):
    errors = engine("errors")
    saver.save(state(1.0), 1)
    saver.wait()

    def no_space(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(engine("run.checkpoint").os, "fsync", no_space)
    for call in (saver.wait, lambda: saver.save(state(3.0), 3)):
        saver.save(state(2.0), 2)
        saver.close()
        with pytest.raises(
            errors.SaveError, match=r"step-00000002.pt cannot be written: No space .*needs about 0\.0 MiB"
        ):
            call()
        saver.wait()
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001.pt"]


def test_the_thread_is_gone_when_a_run_ends(train, workspace):
    """No write is lost that began before the end or before a failure."""
    snippets.add(workspace, "digits/slow.py")
    options = ("task._target_=.slow.Slow", "logger=none", "max_steps=6", "save_every_steps=3", "val_every_epochs=0")
    done = train(*options, "name=whole")
    assert done.code == 0, done.out
    assert "threads at the end: 1" in done.out
    done = train(*options, "name=failing", FAIL_AT="3")
    assert done.code == 1
    (folder,) = [p for p in (workspace / "runs/failing").iterdir() if p.name[0] != "."]
    assert (folder / "checkpoints/step-00000003.pt").exists()


def test_a_resume_reads_the_best_checkpoint_once(looped, engine, monkeypatch):
    """It is a second name of the newest checkpoint here."""
    loop = looped("max_steps=2", "logger=none")
    loop.fit()
    checkpoint, resume, read = engine("run.checkpoint"), engine("run.resume"), []
    load = checkpoint.load
    monkeypatch.setattr(checkpoint, "load", lambda path, *more: read.append(path.name) or load(path, *more))
    assert resume.find_checkpoint(loop.run, loop.config)["step"] == 2
    assert read == ["step-00000002.pt"]
