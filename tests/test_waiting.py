"""A step never waits for the device, whatever is logged of it."""

import collections
import threading
import types

import pytest
import torch
from helpers.machine import NEEDS_GPU
from helpers.runs import rows
from torch.utils._python_dispatch import TorchDispatchMode

EVERYTHING = (
    "model=mlp", "clip_grad_norm=1", "clip_grad_value=1", "ema_decay=0.9", "accumulate=2", "scheduler=cosine",
    "epochs=2", "log.every=8", "workers=0", "loss=terms", "max_minutes=60",
    "log.windows=[{source: loss, name: most, statistic: max, window: 5}, {source: acc, statistic: std, window: epoch}]",
)  # fmt: skip
CLIPS = {"clipped": (), "not clipped": ("clip_grad_norm=null", "clip_grad_value=null", "log.grad_norm=true")}
WAITING = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__")


class Waits(TorchDispatchMode):
    """Count the operations that wait for the device, for each part of the loop."""

    OPS = {"aten::_local_scalar_dense", "aten::equal", "aten::nonzero", "aten::is_nonzero", "aten::masked_select"}

    def __init__(self, loop) -> None:
        super().__init__()
        self.loop, self.where, self.inside = loop, "step", False
        self.counts = collections.Counter()

    def count(self, name):
        # After the first step loggers show the model, and the config after the last.
        if self.where != "step" or 1 < self.loop.step < self.loop.parts.total_steps:
            self.counts[self.where, name] += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in self.OPS and not self.inside:
            self.count(func._schema.name)
        return func(*args, **(kwargs or {}))

    def method(self, name):
        inner = getattr(torch.Tensor, name)

        def counted(tensor, *args, **kwargs):
            if threading.current_thread() is not threading.main_thread():  # it looks at the copy that it saves
                return inner(tensor, *args, **kwargs)
            outer, self.inside = self.inside, True  # one wait, whatever it is made of
            if not outer:
                self.count(name)
            try:
                return inner(tensor, *args, **kwargs)
            finally:
                self.inside = outer

        return counted

    def place(self, owner, name, where):
        inner = getattr(owner, name)

        def placed(*args, **kwargs):
            before, self.where = self.where, where
            try:
                return inner(*args, **kwargs)
            finally:
                self.where = before

        return placed


def counted(loop, monkeypatch) -> Waits:
    """Train to the end and count what waits."""
    waits = Waits(loop)
    for name in ("log", "validate", "save", "next_batch"):  # a batch is read on the host, whatever the device
        monkeypatch.setattr(loop, name, waits.place(loop, name, name))
    for name in WAITING:
        monkeypatch.setattr(torch.Tensor, name, waits.method(name))
    with waits:
        loop.fit()
    monkeypatch.undo()
    return waits


@pytest.mark.parametrize("clips", CLIPS.values(), ids=CLIPS)
def test_a_step_never_waits_for_the_device(looped, monkeypatch, clips):
    loop = looped(*EVERYTHING, *clips, "device=cpu")
    waits = counted(loop, monkeypatch)
    assert loop.step == 40
    log_points = len([row for row in rows(loop.run.folder) if "train/loss" in row])
    assert log_points == 6
    assert {key: n for key, n in waits.counts.items() if key[0] == "step"} == {}
    assert {key: n for key, n in waits.counts.items() if key[0] == "log"} == {("log", "tolist"): log_points}


class Copies(TorchDispatchMode):
    """Collect the operations that copy from the host to a device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        devices = {x.device.type for x in (*args, result) if isinstance(x, torch.Tensor)}
        self.found += [str(func)] if len(devices) > 1 else []
        return result


@pytest.mark.parametrize("where", ["cpu", "meta"])
def test_a_number_of_things_on_the_host_is_not_copied_to_the_device(engine, where):
    """The device "meta" stands for a GPU."""
    means, parts, statistics = engine("means"), engine("build.parts"), engine("log.statistics")
    device, weight = torch.device("meta"), torch.ones(2, device="meta", requires_grad=True)
    weight.grad = torch.ones(2, device="meta")
    holder = types.SimpleNamespace(device=device, parameters={"weight": weight})
    windows = statistics.Statistics(device)
    loss = means.Mean(torch.ones((), device="meta"), torch.tensor(3.0, device=where))
    with Copies() as copies:
        windows.add(0, {"loss": loss}, 4)
        parts.Parts.average_gradients(holder, means.value_and_n(loss)[1])
    assert copies.found == []


def test_waiting_would_be_noticed(looped, monkeypatch):
    loop = looped(*EVERYTHING, "device=cpu", "max_steps=5")
    step = loop.parts.task.training_step

    def impatient(model, batch, ctx):
        values = step(model, batch, ctx)
        loss = values["loss"].detach()
        assert loss < 1e9
        assert loss.tolist() < 1e9
        assert loss.item() < 1e9
        return values

    loop.parts.task.training_step = impatient
    waits = counted(loop, monkeypatch)
    assert {key[1]: n for key, n in waits.counts.items() if key[0] == "step"} == {"__bool__": 6, "tolist": 6, "item": 6}


@pytest.mark.cuda
@NEEDS_GPU
@pytest.mark.parametrize("clips", CLIPS.values(), ids=CLIPS)
@pytest.mark.parametrize("counted", [False, True], ids=["tensor", "mean"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_never_waits_for_the_gpu(looped, monkeypatch, precision, counted, clips, engine):
    api = engine("api")
    loop = looped(*EVERYTHING, *clips, "device=cuda", f"precision={precision}")
    step, allowed, its = loop.training_step, [], loop.parts.task.training_step

    def counting(model, batch, ctx):
        values = its(model, batch, ctx)
        return {**values, "loss": api.Mean(values["loss"], len(batch[1]))} if counted else values

    loop.parts.task.training_step = counting

    def strict(batches):
        torch.cuda.set_sync_debug_mode("error" if loop.step >= 3 else "default")  # the first steps set things up
        try:
            step(batches)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        allowed.append(loop.step)

    monkeypatch.setattr(loop, "training_step", strict)
    loop.fit()
    assert len(allowed) == 40
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError):
            torch.ones((), device="cuda").item()  # the mode does notice
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_log_point_is_one_event(looped):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    loop = looped(*EVERYTHING, "device=cpu", "logger=tensorboard")
    loop.fit()
    events = collections.Counter()
    for path in (loop.run.folder / "tensorboard").glob("events*"):
        for event in EventFileLoader(str(path)).Load():
            tags = {value.tag for value in event.summary.value}
            if "train/loss" in tags:
                assert {"train/acc", "train/most", "train/grad_norm", "lr/all", "time/step"} <= tags
            if any(tag.startswith(("train/", "lr/", "time/")) and tag != "train/inputs" for tag in tags):
                events[event.step] += 1
    assert events == dict.fromkeys((8, 16, 20, 24, 32, 40), 1)
