"""Layer-wise learning rates: one layer for each block, in the order of the forward pass, or a refusal."""

import importlib
import re
import sys
import types

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

BLOCKS = re.compile(
    "BasicBlock|Bottleneck|ResBottleneckBlock|_?InvertedResidual|(Fused)?MBConv|CNBlock|SwinTransformerBlock(V2)?|"
    "EncoderBlock|_?DenseLayer|Fire|Inception[A-E]?|MaxVitLayer|"
    "Block|ConvNeXtBlock|DepthwiseSeparableConv|EdgeResidual|MixerBlock"  # timm's
)
"""Classes of blocks in torchvision and timm."""


@pytest.fixture(scope="module")
def optim(engine):
    return engine("build.optimizer")


@pytest.fixture(scope="module")
def layers_in_order(engine):
    return engine("build.optimizer").layers_in_order


def build(optim, model, decay=0.5):
    parameters = optim.named_parameters(model, nn.Module())
    section = {"_target_": "torch.optim.SGD", "layer_decay": decay}
    return optim.build_optimizer(section, 0.1, model, parameters, [])


def called(model: nn.Module, *inputs: Tensor) -> list[str]:
    """The names of the modules with parameters of their own, in the order of their first call."""
    order: dict[str, None] = {}
    for name, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_pre_hook(lambda *_, name=name: order.setdefault(name))
    model.eval()(*inputs)
    return list(order)


def assert_blocks_in_order(model: nn.Module, layers: dict[str, list[str]], *inputs: Tensor) -> int:
    """Each block is one layer, layers are called in order, each parameter is in one. Returns the number of blocks."""
    parameters = dict(model.named_parameters())
    listed = [name for names in layers.values() for name in names]
    assert sorted(listed) == sorted(parameters)
    place = {name: number for number, names in enumerate(layers.values()) for name in names}
    order = []
    for name in called(model, *inputs):
        own = [f"{name}.{key}".lstrip(".") for key, _ in model.get_submodule(name).named_parameters(recurse=False)]
        if any(parameters[key].ndim > 1 for key in own):  # a norm may belong to the layer before it
            order += [place[key] for key in own]
    assert order == sorted(order)
    blocks = [name for name, module in model.named_modules() if BLOCKS.fullmatch(type(module).__name__)]
    blocks = [name for name in blocks if not any(name.startswith(f"{other}.") for other in blocks)]
    numbers = []
    for block in blocks:
        inside = [name for name in listed if name.startswith(f"{block}.")]
        (number,) = {place[name] for name in inside}
        numbers.append(number)
    assert len(set(numbers)) == len(blocks)
    return len(blocks)


@pytest.mark.parametrize(
    ("name", "blocks", "others", "first", "last"),
    [
        ("alexnet", 0, 8, "features.0", "classifier.6"),
        ("convnext_tiny", 18, 5, "features.0", "classifier"),
        ("densenet121", 58, 2, "features.conv0", "classifier"),
        ("efficientnet_b0", 16, 3, "features.0", "classifier"),
        ("efficientnet_v2_s", 40, 3, "features.0", "classifier"),
        ("googlenet", 9, 4, "conv1", "fc"),
        ("inception_v3", 11, 6, "Conv2d_1a_3x3", "fc"),
        ("maxvit_t", 11, 2, "stem", "classifier"),
        ("mnasnet0_5", 16, 5, "layers.0", "classifier"),
        ("mobilenet_v2", 17, 3, "features.0", "classifier"),
        ("mobilenet_v3_small", 11, 3, "features.0", "classifier"),
        ("regnet_y_400mf", 16, 2, "stem", "fc"),
        ("resnet18", 8, 2, "conv1", "fc"),
        ("resnet50", 16, 2, "conv1", "fc"),
        ("resnext50_32x4d", 16, 2, "conv1", "fc"),
        ("shufflenet_v2_x0_5", 16, 3, "conv1", "fc"),
        ("squeezenet1_1", 8, 2, "features.0", "classifier"),
        ("swin_t", 12, 5, "features.0", "head"),
        ("swin_v2_t", 12, 5, "features.0", "head"),
        ("vgg11", 0, 11, "features.0", "classifier.6"),
        ("vgg11_bn", 0, 11, "features.0", "classifier.6"),
        ("vit_b_16", 12, 2, "conv_proj", "heads"),
    ],
)
def test_torchvision(engine, layers_in_order, name, blocks, others, first, last):
    size = 299 if name == "inception_v3" else 224
    with torch.device("cpu" if "regnet" in name else "meta"):  # its widths are computed
        model = engine("models.torchvision").torchvision_model(name, (3, size, size), 10)
        picture = torch.empty(2, 3, size, size)
    layers = layers_in_order(model)
    assert assert_blocks_in_order(model, layers, picture) == blocks
    labels = list(layers)
    assert (labels[0], labels[-1], len(labels)) == (first, last, blocks + others)


@pytest.mark.parametrize("name", ["convnext_tiny", "vit_b_16", "resnet18"])
def test_a_layer_learns_more_than_the_one_before_it(optim, engine, name):
    size = 224 if name == "vit_b_16" else 64
    model = engine("models.torchvision").torchvision_model(name, (3, size, size), 10)
    optimizer = build(optim, model)
    lrs = [group["lr"] for group in optimizer.param_groups]
    assert lrs == pytest.approx([0.1 * 0.5**number for number in reversed(range(len(lrs)))])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_tokens_and_positions_belong_to_the_first_layer(layers_in_order):
    with torch.device("meta"):
        layers = layers_in_order(models.vit_b_16())
    assert layers["conv_proj"] == ["class_token", "conv_proj.weight", "conv_proj.bias", "encoder.pos_embedding"]


@pytest.mark.parametrize(
    ("name", "blocks", "others"),
    [
        ("resnet10t", 4, 2),
        ("convnext_tiny", 18, 2),
        ("vit_tiny_patch16_224", 12, 2),
        ("efficientnet_b0", 16, 2),
        ("mobilenetv3_small_100", 11, 3),
        ("regnety_002", 13, 2),
        ("densenet121", 58, 2),
        ("mixer_s16_224", 8, 2),
        ("swin_tiny_patch4_window7_224", 12, 2),
    ],
)
def test_timm(layers_in_order, name, blocks, others):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=10)
        picture = torch.empty(2, 3, 224, 224)
    layers = layers_in_order(model)
    assert assert_blocks_in_order(model, layers, picture) == blocks
    assert len(layers) == blocks + others


def test_the_layers_of_small_models(engine, layers_in_order):
    """Their names are tags of logged values, and runs of older releases resume with them."""
    mlp = engine("models.mlp").MLP((1, 8, 8), 10, [32, 16])
    assert list(layers_in_order(mlp)) == ["layers.1", "layers.4", "layers.7"]
    cnn = importlib.import_module("digits.models.cnn").CNN((1, 8, 8), 10, 8, 0.1)
    stages = [f"stages.{number}" for number in range(5)]
    assert list(layers_in_order(cnn)) == ["stem", *stages, "head"]


class CNN(nn.Module):
    """It has the name of a known model, and other layers."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)


class Own(models.ResNet):
    """A family's class under another name."""


class Wrapper(nn.Module):
    def __init__(self, net, *others):
        super().__init__()
        self.net, self.others = net, nn.ModuleList(others)


def block() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.ReLU())


def test_a_chain_says_its_order(layers_in_order):
    chain = nn.Sequential(block(), nn.ReLU(), block(), nn.LayerNorm(2), nn.Linear(2, 2))
    assert list(layers_in_order(chain)) == ["0", "2", "4"]
    assert layers_in_order(chain)["2"] == ["2.0.weight", "2.1.weight", "2.1.bias", "3.weight", "3.bias"]
    assert list(layers_in_order(Wrapper(chain))) == ["net.0", "net.2", "net.4"]


def test_a_wrapped_and_a_derived_model_of_a_family(layers_in_order):
    with torch.device("meta"):
        inner, own = models.resnet18(), Own(models.resnet.BasicBlock, [2, 2, 2, 2])
    assert list(layers_in_order(own)) == list(layers_in_order(inner))
    assert list(layers_in_order(Wrapper(inner))) == [f"net.{name}" for name in layers_in_order(inner)]


def test_a_model_that_names_its_layers(optim):
    class Odd(nn.Module):
        layers_in_order = ("c", ["b", "d"], "a")

        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Linear(2, 2) for _ in range(4))
            self.scale = nn.Parameter(torch.ones(2))

    optimizer = build(optim, Odd())
    lrs = {g["name"]: g["lr"] for g in optimizer.param_groups}
    assert lrs == {"all/c": 0.025, "all/b": 0.05, "all/a": 0.1}
    assert [len(g["params"]) for g in optimizer.param_groups] == [3, 4, 2]


def test_timm_is_asked(layers_in_order, monkeypatch):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(2, 2), nn.Linear(2, 2)

        def group_matcher(self):
            return {"stem": "^stem"}

    def group_parameters(model, matcher):
        assert matcher == {"stem": "^stem"}
        return {1: ["head.weight", "head.bias"], 0: ["stem.weight", "stem.bias"]}

    timm = types.ModuleType("timm.models")
    timm.group_parameters = group_parameters
    monkeypatch.setitem(sys.modules, "timm", types.ModuleType("timm"))
    monkeypatch.setitem(sys.modules, "timm.models", timm)
    assert layers_in_order(Model()) == {
        "layer0": ["stem.weight", "stem.bias"],
        "layer1": ["head.weight", "head.bias"],
    }


def unknown() -> dict[str, nn.Module]:
    """Models that do not say in which order their modules run, or which of them are a layer."""
    return {
        "two children": Wrapper(nn.Linear(2, 2), nn.Linear(2, 2)),
        "a list of blocks": Wrapper(nn.ModuleList([block(), block()])),
        "a backbone in a chain": nn.Sequential(models.vit_b_16(num_classes=2), nn.Linear(2, 2)),
        "blocks in a chain": nn.Sequential(nn.Sequential(block(), block()), nn.Linear(2, 2)),
        "one layer": nn.Linear(2, 2),
        "a family's name alone": CNN(),
    }


@pytest.mark.parametrize("what", unknown())
def test_layers_are_not_guessed(optim, engine, what):
    with pytest.raises(engine("errors").UserError, match="attribute `layers_in_order`"):
        build(optim, unknown()[what])


def test_a_wrong_name_in_the_list(engine, layers_in_order):
    class Wrong(nn.Module):
        layers_in_order = ["blocks.0", "haed"]

        def __init__(self):
            super().__init__()
            self.blocks, self.head = nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2)

    with pytest.raises(engine("errors").UserError, match="Did you mean 'head'"):
        layers_in_order(Wrong())


@pytest.mark.parametrize("entries", [[nn.Linear(2, 2)], [["a", 1]], [None], ["a", ("b", nn.ReLU())]])
def test_a_list_of_other_things_than_names(engine, layers_in_order, entries):
    model = nn.Module()
    model.a, model.b, model.layers_in_order = nn.Linear(2, 2), nn.Linear(2, 2), entries
    with pytest.raises(engine("errors").UserError, match="must list names of modules"):
        layers_in_order(model)
