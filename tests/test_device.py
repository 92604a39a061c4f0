"""Device, memory layout and determinism are as the config says."""

from types import SimpleNamespace

import pytest
import torch


@pytest.mark.parametrize("mix", [False, True])
def test_channels_last_reaches_weights_and_batches(looped_on_device, monkeypatch, mix):
    loop = looped_on_device("channels_last=true", "data=synthetic", "data.size=64", "max_steps=1")
    seen = []
    step = loop.parts.task.training_step
    loop.parts.task.training_step = lambda model, batch, ctx: (seen.append(batch[0]), step(model, batch, ctx))[1]
    if mix:  # on a GPU, MixUp loses the layout
        monkeypatch.setattr(loop.parts, "mix", lambda images, labels: (images.contiguous(), labels))
    loop.fit()
    layouts = [seen[0], *(p for p in loop.parts.model.parameters() if p.ndim == 4 and p.shape[-1] > 1)]
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in layouts)
    assert not seen[0].is_contiguous()


def test_the_fingerprint_of_a_gpu_names_its_libraries(engine, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", str)
    make_fingerprint = engine("machine.device").make_fingerprint
    on_gpu, on_cpu = (make_fingerprint(torch.device(name), "")["versions"] for name in ("cuda:0", "cpu"))
    assert on_gpu.keys() - on_cpu.keys() == {"CUDA", "cuDNN"}


@pytest.mark.parametrize(("value", "enabled", "warns"), [("true", 1, 0), ("warn", 1, 1), ("false", 0, 0)])
def test_determinism(looped_on_device, value, enabled, warns):
    looped_on_device(f"deterministic={value}")
    assert torch.are_deterministic_algorithms_enabled() == enabled
    assert torch.is_deterministic_algorithms_warn_only_enabled() == warns
    assert torch.backends.cudnn.deterministic == enabled
    assert torch.backends.cudnn.benchmark == (not enabled)


@pytest.mark.parametrize(
    ("name", "processes", "gpus", "told"),
    [
        ("auto", 2, 1, "has 1 usable GPUs for 2 processes"),
        ("cuda", 2, 0, "has 0 usable GPUs for 2"),
        ("cuda:1", 2, 4, "Each needs its own"),
    ],
)
def test_each_process_needs_a_gpu(engine, monkeypatch, name, processes, gpus, told):
    device, errors = engine("machine.device"), engine("errors")
    monkeypatch.setattr(device, "LOCAL_WORLD_SIZE", processes)
    monkeypatch.setattr(device, "WORLD_SIZE", processes)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=index))
    monkeypatch.setattr(device, "from_all", lambda own: [own] * processes)  # the other sees the same one
    with pytest.raises(errors.DeviceError, match=told):
        device.choose_device(name)


def test_srun_may_show_each_process_its_own_gpu(engine, monkeypatch):
    """`--gpus-per-task=1`: the second process of a host sees one GPU, which only it has."""
    device = engine("machine.device")
    monkeypatch.setattr(engine("machine.distributed"), "LOCAL_RANK", 1)
    monkeypatch.setattr(device, "WORLD_SIZE", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="second"))
    monkeypatch.setattr(device, "from_all", lambda own: [(own[0], own[1].replace("second", "first")), own])
    assert device.choose_device("auto") == torch.device("cuda", 0)


@pytest.mark.parametrize(("other", "told"), [(("cpu", None), "on every host"), (("cuda", "b"), "on some hosts only")])
def test_another_host_may_lack_a_gpu(engine, monkeypatch, other, told):
    device, errors = engine("machine.device"), engine("errors")
    monkeypatch.setattr(device, "from_all", lambda own: [own, other])
    monkeypatch.setattr(device, "WORLD_SIZE", 2)
    with pytest.raises(errors.DeviceError, match=told):
        device.choose_device("cpu")
