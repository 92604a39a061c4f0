"""Weights to start from: `init_from` and `init_rename`."""

import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import result, the_run
from torch import nn


def test_init_from(train, workspace, tmp_path):
    assert train("epochs=2", "logger=none", "name=first").code == 0
    best = the_run(workspace, "first") / "checkpoints/best.pt"
    done = train("epochs=1", "logger=none", "name=second", f"init_from={best}", "lr=1e-8")
    assert done.code == 0, done.out
    assert "tensors of the model." in done.out
    assert result(the_run(workspace, "second"))["best"] == pytest.approx(
        result(the_run(workspace, "first"))["best"], abs=0.02
    )
    model = torch.load(best, weights_only=True)["model"]
    torch.save({f"trunk.{k}": v for k, v in model.items() if "head" not in k}, tmp_path / "renamed.pt")
    done = train("epochs=1", f"init_from={tmp_path / 'renamed.pt'}")
    assert done.code == 2
    assert "trunk." in done.last
    done = train("epochs=1", f"init_from={tmp_path / 'renamed.pt'}", "init_rename=['^trunk[.]=>']", "logger=none")
    assert done.code == 0, done.out
    assert "missing in the file, left as initialised: head.weight" in done.out
    done = train("epochs=1", "init_from=/nowhere.pt")
    assert done.code == 2
    (tmp_path / "junk.pt").write_bytes(b"junk")
    assert train("epochs=1", f"init_from={tmp_path / 'junk.pt'}").code == 2


def test_init_from_safetensors(train, workspace, tmp_path):
    from safetensors.torch import save_file

    assert train("epochs=1", "logger=none", "name=first").code == 0
    state = torch.load(the_run(workspace, "first") / "checkpoints/best.pt", weights_only=True)["model"]
    save_file(state, tmp_path / "weights.safetensors")
    done = train("epochs=1", "logger=none", f"init_from={tmp_path / 'weights.safetensors'}")
    assert done.code == 0, done.out
    assert f"{len(state)} of {len(state)} tensors" in done.out


class Scaled(nn.Module):
    """A loss with a parameter and a buffer."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(2))
        self.register_buffer("weight", torch.zeros(2))


def net(classes: int = 2) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, classes))


@pytest.fixture
def load(engine, tmp_path, monkeypatch):
    """`load(content)`: the model, the loss and the words after starting from a file with `content`."""
    module, said = engine("build.init_from"), []
    monkeypatch.setattr(module, "say", said.append)

    def load(content, model=None, rename=(), loss=None):
        torch.save(content, tmp_path / "file.pt")
        model, loss = model or net(), loss or nn.Module()
        module.init_from(model, loss, tmp_path / "file.pt", rename)
        return model, loss, "\n".join([*said, ""])

    return load


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + key: value for key, value in state.items()}


LAYOUTS = {
    "a state dict": lambda s: s,
    "model": lambda s: {"model": s, "optimizer": {"state": {}}, "epoch": 3},
    "state_dict": lambda s: {"state_dict": s},
    "model_state_dict": lambda s: {"model_state_dict": s, "loss": torch.tensor(0.3)},
    "timm": lambda s: {"epoch": 3, "arch": "x", "state_dict": prefixed(s, "module."), "metric": 0.5},
    "timm, averaged": lambda s: {"state_dict": {k: v * 0 for k, v in s.items()}, "state_dict_ema": s},
    "torchvision, averaged": lambda s: {
        "model": {},
        "model_ema": {"n_averaged": torch.tensor(3), **prefixed(s, "module.")},
    },
    "Lightning": lambda s: {
        "pytorch-lightning_version": "2.4.0",
        "state_dict": prefixed(s, "model."),
        "hyper_parameters": {},
    },
    "compiled": lambda s: prefixed(s, "_orig_mod."),
    "compiled and distributed": lambda s: {"state_dict": prefixed(s, "module._orig_mod.")},
    "net": lambda s: prefixed(s, "net."),
    "backbone": lambda s: prefixed(s, "backbone."),
    "with other values": lambda s: {**s, "version": 3, "name": "x"},
    "the only state dict, under any key": lambda s: {"net": s, "optimizer": {"state": {}}, "acc": 0.9, "epoch": 3},
    "beside a tensor with a loss": lambda s: {"generator": prefixed(s, "module."), "loss": torch.tensor(0.3)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_of_other_programs(load, layout):
    torch.manual_seed(1)
    source = net()
    content = LAYOUTS[layout](source.state_dict())
    model, _, said = load(content)
    for key, value in source.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    prefix = {"timm": "module.", "Lightning": "model.", "compiled": "_orig_mod."}.get(layout)
    assert prefix is None or f"left out of the file's keys, so that they fit: {prefix}\n" in said
    assert layout != "a state dict" or "left out" not in said


def test_a_prefix_of_the_model_itself_stays(load):
    source = nn.Module()
    source.net = net()
    model = nn.Module()
    model.net = net()
    model, _, said = load({"state_dict": prefixed(source.state_dict(), "model.")}, model)
    assert torch.equal(model.net[0].weight, source.net[0].weight)
    assert "so that they fit: model.\n" in said


def test_another_head_is_skipped(load):
    source, model = net(5), net(2)
    head = model[2].weight.clone()
    model, _, said = load({"state_dict": prefixed(source.state_dict(), "module.")}, model)
    assert torch.equal(model[0].weight, source[0].weight)
    assert torch.equal(model[2].weight, head)
    assert "other shape, left as initialised: 2.weight (5, 4) instead of (2, 4), 2.bias" in said


def test_the_parameters_of_the_loss(load):
    """They are loaded; its buffers, such as class weights, are what the config says."""
    model, loss = net(), Scaled()
    state = {"scale": torch.ones(2), "weight": torch.ones(2)}
    content = {"format": 1, "model": model.state_dict(), "ema": None, "loss": state}
    _, loss, said = load(content, net(), loss=loss)
    assert loss.scale.tolist() == [1, 1]
    assert loss.weight.tolist() == [0, 0]
    assert f"loaded {len(model.state_dict()) + 1} of" in said


class Settings:
    """What a trainer's file may hold besides tensors."""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (net(), "this file could run code"),
        ({"state_dict": net().state_dict(), "hyper_parameters": Settings()}, "this file could run code"),
        ({"state_dict": net().state_dict(), "root": Path("/data")}, "this file could run code"),
        ({"state_dict": net().state_dict(), "best": np.float64(1)}, "this file could run code"),
        ({1: torch.ones(3)}, "is not a state dict"),
        ([torch.ones(3)], "is not a state dict"),
        ({"weights": {"a": torch.ones(3)}}, "No tensor in .* Its first key is 'a'"),
        ({"weights": {"a": [torch.ones(3)]}}, "is not a state dict"),
        ({"G": net().state_dict(), "D": net().state_dict()}, "holds several state dicts: G, D"),
        ({"0.weight": torch.ones(4, 3).to_sparse()}, "sparse"),
        ({"0.weight": torch.ones(4, 3, device="meta")}, "meta tensors"),
        ({"0.bias": torch.ones(4), "module.0.bias": torch.ones(4)}, "the same name"),
        ({"1": torch.ones(3)}, "No tensor in"),
        ({"module." * 100_000: torch.ones(3)}, "No tensor in"),
        ({"0.weight": torch.full((4, 3), 1e300, dtype=torch.float64)}, "is infinite or NaN"),
        ({"format": 1, "model": net().state_dict(), "ema": 3}, "no tensors by name"),
        ({"format": 1, "model": net().state_dict(), "loss": [1]}, "no tensors by name"),
        ({"format": 1, "model": [1], "ema": None}, "no tensors by name"),
        ({"format": torch.ones(2), "model": [1]}, "No tensor in"),
    ],
)
def test_files_that_are_refused(load, engine, content, words):
    with pytest.raises(engine("errors").UserError, match=words):
        load(content)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_a_quantized_tensor(load, engine):
    content = {"0.weight": torch.quantize_per_tensor(torch.ones(4, 3), 0.1, 0, torch.qint8)}
    with pytest.raises(engine("errors").UserError, match="quantized"):
        load(content)


def archive(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """Write the records of a state dict anew, each of them changed."""
    torch.save(net().state_dict(), path)
    with zipfile.ZipFile(path) as source:
        records = [(name, change(name, source.read(name))) for name in source.namelist()]
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, data in records:
            target.writestr(name, data)


def test_an_archive_that_blows_up(engine, tmp_path):
    """256 MB of zeros in 260 kB: it is refused before it is unpacked."""
    path = tmp_path / "bomb.pt"
    archive(path, lambda name, data: bytes(2**28) if name.endswith("/data/0") else data, zipfile.ZIP_DEFLATED)
    began = time.monotonic()
    with pytest.raises(engine("errors").UserError, match="it is compressed"):
        engine("build.init_from").read_weights(path)
    assert time.monotonic() - began < 1


def test_a_flipped_bit(engine, tmp_path):
    """torch.load does not compare checksums."""
    path = tmp_path / "flipped.pt"
    archive(path, lambda name, data: data)
    content = bytearray(path.read_bytes())
    weight = net().state_dict()["1.running_var"].numpy().tobytes()  # ones
    content[content.index(weight)] ^= 1
    path.write_bytes(content)
    with pytest.raises(engine("errors").UserError, match="checksum"):
        engine("build.init_from").read_weights(path)


def test_a_folder(engine, tmp_path):
    with pytest.raises(engine("errors").UserError, match="is a folder"):
        engine("build.init_from").read_weights(tmp_path)


@pytest.mark.parametrize(
    ("content", "edit"),
    [
        ({"state_dict": net().state_dict(), "root": Path("/data")}, ("", "")),
        (net(), ("c['state_dict']", "c.state_dict()")),
    ],
)
def test_the_advice_for_a_file_that_could_run_code(load, engine, tmp_path, monkeypatch, content, edit):
    """Its line makes a file that can be read."""
    with pytest.raises(engine("errors").UserError) as caught:
        load(content)
    code = str(caught.value).split('"')[1]
    monkeypatch.chdir(tmp_path)
    exec(code.replace(*edit))
    weights = engine("build.init_from").read_weights(tmp_path / "weights.pt")
    assert weights.keys() == net().state_dict().keys()


def scripted(path: Path) -> None:
    torch.jit.save(torch.jit.trace(net().eval(), torch.ones(2, 3)), path)


def exported(path: Path) -> None:
    torch.export.save(torch.export.export(net().eval(), (torch.ones(2, 3),)), path)


def two_state_dicts(path: Path) -> None:
    torch.save({"G": net().state_dict(), "D": net().state_dict()}, path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("save", "said"),
    [
        (scripted, "is a program, not a state dict"),
        (exported, "is a program, not a state dict"),
        (two_state_dicts, "holds several state dicts"),
    ],
    ids=["torch.jit", "torch.export", "two state dicts"],
)
def test_the_advice_for_other_files(engine, tmp_path, monkeypatch, save, said):
    """Its line makes a file that can be read."""
    save(tmp_path / "file.pt2")
    read_weights = engine("build.init_from").read_weights
    with pytest.raises(engine("errors").UserError, match=said) as caught:
        read_weights(tmp_path / "file.pt2")
    monkeypatch.chdir(tmp_path)
    exec(str(caught.value).split('"')[1])
    weights = read_weights(tmp_path / "weights.pt")
    assert {key: value.shape for key, value in weights.items()} == {k: v.shape for k, v in net().state_dict().items()}
