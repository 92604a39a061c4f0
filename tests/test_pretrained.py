"""Weights that others have trained: they arrive, the data are prepared as theirs were, and fine-tuning resumes."""

import re
import sys
from pathlib import Path

import pytest
import torch
from helpers.hub import mute_hub
from helpers.runs import result, rows, the_run
from torchvision import models

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SHORT = ("batch_size=8", "limit_val_batches=1", "log.every=1", "logger=none", "workers=0", "device=cpu")
NO_NETWORK = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> dict[str, torch.Tensor]:
    """Random weights of torchvision's resnet18, unlike those of any seed."""
    torch.manual_seed(12345)
    return models.resnet18().state_dict()


@pytest.fixture(scope="session")
def home(weights, tmp_path_factory) -> Path:
    """A TORCH_HOME that holds these weights under the name of the published ones."""
    home = tmp_path_factory.mktemp("torch_home")
    path = home / "hub/checkpoints" / Path(models.ResNet18_Weights.DEFAULT.url).name
    path.parent.mkdir(parents=True)
    torch.save(weights, path)
    return home


def assert_loaded(net: torch.nn.Module, weights: dict[str, torch.Tensor], head: str = "fc.") -> None:
    """All tensors but those of the classifier are those of the file."""
    own = net.state_dict()
    assert own.keys() == weights.keys()
    assert all(torch.equal(own[name], weights[name]) for name in own if not name.startswith(head))
    assert own[f"{head}weight"].shape != weights[f"{head}weight"].shape


def advice(out: str) -> str:
    """The warning about other pictures as one line."""
    text = " ".join(out.split())
    return text[text.index("expect other pictures") :] if "expect other pictures" in text else ""


# ---------------------------------------------------------------- the model


def test_weights_of_torchvision(engine, weights, home, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(home))
    net = engine("models.torchvision").torchvision_model("resnet18", (3, 32, 32), 3, pretrained=True)
    assert_loaded(net, weights)
    assert net.trained_on == {"mean": MEAN, "std": STD, "size": 224, "interpolation": "bilinear"}


@pytest.fixture
def timm_file(tmp_path) -> tuple[Path, dict[str, torch.Tensor]]:
    from safetensors.torch import save_file

    timm = pytest.importorskip("timm")
    torch.manual_seed(12345)
    state = timm.create_model("resnet10t").state_dict()
    save_file(state, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors", state


def test_weights_of_timm(engine, timm_file):
    path, state = timm_file
    make = engine("models.timm").timm_model
    net = make("resnet10t", (3, 32, 32), 3, pretrained=True, weights=str(path))
    assert_loaded(net, state)
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    known = net.pretrained_cfg
    assert net.trained_on == {
        **{key: known[key] for key in ("mean", "std", "interpolation")},
        "size": known["input_size"][1],
    }
    grey = make("resnet10t", (1, 32, 32), 3, pretrained=True, weights=str(path))
    assert torch.allclose(grey.conv1[0].weight[:, 0], state["conv1.0.weight"].sum(1), atol=1e-6)


def test_a_file_that_lacks_a_tensor_is_refused(engine, timm_file):
    from safetensors.torch import save_file

    path, state = timm_file
    save_file({name: value for name, value in state.items() if "layer4" not in name}, path)
    with pytest.raises(engine("errors").UserError, match=r"cannot be loaded .*layer4.*set model\.weights=PATH"):
        engine("models.timm").timm_model("resnet10t", (3, 32, 32), 3, pretrained=True, weights=str(path))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "resnet10t"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 64, 32)])
def test_timm_takes_channels_size_and_classes_from_the_data(engine, name, shape):
    pytest.importorskip("timm")
    net = engine("models.timm").timm_model(name, shape, 5).eval()
    assert net(torch.randn(2, *shape)).shape == (2, 5)


def test_without_timm_it_says_how_to_install_it(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(engine("errors").UserError, match=r"timm is not installed\. Install it: uv add timm"):
        engine("models.timm").timm_model("resnet10t", (3, 32, 32), 5)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (("model=resnet18",), "hub/checkpoints"),
        (("model=timm", "model.name=resnet10t"), "model.weights=PATH"),
    ],
    ids=["torchvision", "timm"],
)
def test_without_network_one_sentence_says_where_the_file_goes(train, workspace, tmp_path, model, said):
    home = {"TORCH_HOME": str(tmp_path / "torch"), "HF_HOME": str(tmp_path / "hf")}
    done = train(*model, "model.pretrained=true", "data=synthetic", *SHORT, **home, **NO_NETWORK)
    assert done.code == 2, done.out
    assert said in done.last, done.out
    assert "Traceback" not in done.out
    assert not list((workspace / "runs").glob("*/[!.]*"))


@pytest.mark.parametrize("way", ["HF_ENDPOINT", "https_proxy"])
def test_a_hub_that_does_not_answer_is_asked_once(train, workspace, tmp_path, way):
    """huggingface_hub would try six times for each of two files, which takes a minute."""
    pytest.importorskip("timm")
    options = ("model=timm", "model.name=resnet10t", "model.pretrained=true", "data=synthetic", *SHORT)
    with mute_hub() as (address, calls):
        done = train(*options, HF_HOME=str(tmp_path / "hf"), **{way: address})
    assert done.code == 2, done.out
    assert "model.weights=PATH" in done.last
    assert 1 <= len(calls) <= 2  # httpx repeats a request whose connection was lost
    assert not list((workspace / "runs").glob("*/[!.]*"))


# ---------------------------------------------------------------- the data


def test_other_pictures_are_named_with_the_overrides_that_help(train, workspace, pictures, home):
    options = ("model=resnet18", "model.pretrained=true", *SHORT, "max_steps=1", "data=image_folder")
    options = (*options, f"data.root='{pictures}'", "data.channels=3")
    done = train(*options, TORCH_HOME=str(home))
    assert done.code == 0, done.out
    overrides = re.findall(r"data\.\S+=\S+", advice(done.out))
    assert overrides == ["data.mean=[0.485,0.456,0.406]", "data.std=[0.229,0.224,0.225]", "data.size=224"]
    done = train(*options, *overrides, "name=prepared", TORCH_HOME=str(home))
    assert done.code == 0, done.out
    assert not advice(done.out)


def test_it_says_so_too_where_the_data_have_no_such_keys(train, home):
    done = train(
        "model=resnet18", "model.pretrained=true", "dry_run=true", "data=synthetic", *SHORT, TORCH_HOME=str(home)
    )
    assert done.code == 0, done.out
    assert f"no key for mean {MEAN}, std {STD}, size 224.".replace(" ", "") in advice(done.out).replace(" ", "")


def test_grey_pictures_are_compared_with_the_mean_over_the_channels(train, pictures, home):
    options = ("model=resnet18", "model.pretrained=true", *SHORT, "max_steps=1", "data=image_folder")
    done = train(*options, f"data.root='{pictures}'", "data.size=32", "data.channels=1", TORCH_HOME=str(home))
    assert done.code == 0, done.out
    overrides = re.findall(r"data\.\S+=\S+", advice(done.out))
    assert overrides == ["data.mean=[0.449]", "data.std=[0.226]", "data.size=224"]


def test_a_model_without_pretrained_weights_gets_no_advice(train):
    done = train("model=resnet18", "max_steps=1", "data=synthetic", *SHORT)
    assert done.code == 0, done.out
    assert not advice(done.out)


# ---------------------------------------------------------------- fine-tuning


def test_fine_tuning(train, workspace, pictures, weights, home):
    options = ("experiment=finetune", f"data.root='{pictures}'", "data.size=32", "max_steps=4", *SHORT)
    options = (*options, "save_every_steps=2")
    done = train(*options, "name=whole", TORCH_HOME=str(home))
    assert done.code == 0, done.out
    assert re.findall(r"data\.\S+=\S+", advice(done.out)) == ["data.size=224"]
    for row in rows(the_run(workspace, "whole")):
        if "lr/head" in row:
            assert row["lr/backbone"] == pytest.approx(0.1 * row["lr/head"])

    done = train(*options, "name=stopped", "max_minutes=1e-9", TORCH_HOME=str(home))
    assert done.code == 75, done.out
    done = train(*options, "name=stopped", "resume=auto", TORCH_HOME=str(home))
    assert done.code == 0, done.out
    whole, stopped = (result(the_run(workspace, name)) for name in ("whole", "stopped"))
    assert stopped["weights_sha256"] == whole["weights_sha256"]


def test_fine_tuning_begins_with_the_weights_of_the_file(train, workspace, pictures, weights, home):
    options = ("experiment=finetune", f"data.root='{pictures}'", "data.size=32", "max_steps=1", *SHORT)
    done = train(*options, "lr=1e-12", TORCH_HOME=str(home))
    assert done.code == 0, done.out
    (path,) = (the_run(workspace, "finetune") / "checkpoints").glob("step-*.pt")
    model = torch.load(path, weights_only=True)["model"]
    trained = [name for name in weights if name.endswith(("weight", "bias")) and not name.startswith("fc.")]
    assert all(torch.allclose(model[name], weights[name], atol=1e-7) for name in trained)
    assert model["fc.weight"].shape == (3, 512)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "vit_b_16", "resnet10t"])
def test_its_groups_fit_other_models(train, pictures, name):
    options = ("experiment=finetune", f"data.root='{pictures}'", "model.pretrained=false", "dry_run=true", *SHORT)
    kind = "timm" if name == "resnet10t" else "torchvision"
    done = train(*options, "data.size=32", f"model={kind}", f"model.name={name}")
    assert done.code == 0, done.out
    assert re.search(r"^head .*\n *backbone ", done.out, re.MULTILINE), done.out
