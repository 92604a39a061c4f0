"""The layers of a model from input to output, for `optimizer.layer_decay`."""

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from ..errors import UserError, nearest
from .target import has_type

# The modules of torchvision's models that are a layer each, by class, as the start of the names of
# their parameters. What has no group in parentheses belongs to the layer before it.
_FAMILIES = {
    "AlexNet": r"(features\.\d+|classifier\.\d+)",
    "CNN": r"(stem|stages\.\d+|head)",  # of this template, until 0.2.0
    "ConvNeXt": r"(features\.[1357]\.\d+|features\.\d+|classifier)",
    "DenseNet": r"(features\.conv0|features\.denseblock\d+\.denselayer\d+|classifier)|features\.",
    "FlowNet": r"(features|join|down|middle|up|merge|fine|head)",  # of this template, as CNN
    "Net": r"(hidden|output)",  # of this template, as CNN
    "EfficientNet": r"(features\.\d+\.\d+(?=\.block)|features\.\d+|classifier)",
    "GoogLeNet": r"(conv\d|inception\d\w|fc)|aux\d",
    "Inception3": r"(Conv2d_\w+|Mixed_\w+|fc)|AuxLogits",
    "MNASNet": r"(layers\.\d+\.\d+(?=\.layers)|layers\.\d+|classifier)",
    "MaxVit": r"(stem|blocks\.\d+\.layers\.\d+|classifier)",
    "MobileNetV2": r"(features\.\d+|classifier)",
    "MobileNetV3": r"(features\.\d+|classifier)",
    "RegNet": r"(stem|trunk_output\.block\d+\.block\d+-\d+|fc)",
    "ResNet": r"(conv1|layer\d\.\d+|fc)|bn1",
    "ShuffleNetV2": r"(conv\d|stage\d\.\d+|fc)",
    "SqueezeNet": r"(features\.\d+|classifier)",
    "SwinTransformer": r"(features\.[1357]\.\d+|features\.\d+|head)|norm",
    "VGG": r"(features\.\d+|classifier\.\d+)",
    "VisionTransformer": r"(conv_proj|encoder\.layers\.encoder_layer_\d+|heads)|class_token|encoder",
}


def layers_in_order(model: nn.Module) -> dict[str, list[str]]:
    """Return the names of each layer's parameters, by the name of the layer. Raises `UserError`.

    A model may list its layers in an attribute or method `layers_in_order`: names of modules, or
    lists of names that are one layer. Parameters of no listed module, such as position embeddings,
    belong to the first layer. timm's models have a method `group_matcher` for this. Models of
    torchvision are in the table above, and an nn.Sequential says its order. A model that only wraps
    another has the layers of the other.
    """
    layers = _known_layers(model)
    if layers is None or len(layers) < 2:
        raise UserError(
            f"optimizer.layer_decay needs the order of the layers of {type(model).__name__}. Give it an "
            "attribute `layers_in_order`: the names of its modules from input to output, such as "
            "['stem', 'blocks.0', 'blocks.1', 'head']."
        )
    return layers


def _known_layers(model: nn.Module) -> dict[str, list[str]] | None:
    own = getattr(model, "layers_in_order", None)
    if own is not None:
        return _listed(model, own() if callable(own) else own)
    if hasattr(model, "group_matcher"):
        from timm.models import group_parameters

        layers = group_parameters(model, model.group_matcher())  # type: ignore[operator]
        return {f"layer{number}": layers[number] for number in sorted(layers)}
    for kind in type(model).__mro__:
        if kind.__name__ in _FAMILIES:
            return _matched(model, _FAMILIES[kind.__name__])
    trained = [
        child for child in model.named_children() if any(True for _ in child[1].parameters())
    ]
    if len(trained) == 1 and not list(model.parameters(recurse=False)):  # it wraps another model
        ((path, inner),) = trained
        inside = _known_layers(inner) or {}
        return {f"{path}.{k}": [f"{path}.{n}" for n in names] for k, names in inside.items()}
    if isinstance(model, nn.Sequential):
        parts = [part for child in model for part in child.modules()]
        return None if any(map(_is_stack, parts)) else _matched(model, r"([^.]+)")
    return None


def _listed(model: nn.Module, entries: Iterable[Any]) -> dict[str, list[str]]:
    """Return the layers of a list of modules or of lists of modules."""
    modules = [[e] if isinstance(e, str) else e for e in entries]
    if not all(has_type(layer, list[str]) for layer in modules):
        raise UserError(
            f"layers_in_order of {type(model).__name__} must list names of modules, or lists of names."
        )
    known = dict(model.named_modules())
    if unknown := [name for layer in modules for name in layer if name not in known]:
        raise UserError(
            f"layers_in_order of {type(model).__name__} names '{unknown[0]}', which is not a "
            f"module of it.{nearest(unknown[0], known)}"
        )
    parameters: dict[str, list[str]] = {layer[0]: [] for layer in modules}
    for name, _ in model.named_parameters():
        inside = [layer for layer in modules if any(name.startswith(f"{m}.") for m in layer)]
        parameters[inside[-1][0] if inside else modules[0][0]].append(name)
    return parameters


def _matched(model: nn.Module, pattern: str) -> dict[str, list[str]] | None:
    """Return the layers of a pattern like those above; None if it does not fit all parameters.

    A norm (all its parameters have one dimension) belongs to the layer before it.
    """
    found: dict[str, list[str]] = {"": []}  # what comes before the first layer
    for name, _ in model.named_parameters():
        match = re.match(rf"(?:{pattern})\b", name)
        if match is None:
            return None
        found.setdefault(match[1] or next(reversed(found)), []).append(name)
    sizes = {name: parameter.ndim for name, parameter in model.named_parameters()}
    early = found.pop("")
    layers: dict[str, list[str]] = {}
    for label, names in found.items():
        if layers and all(sizes[name] < 2 for name in names):
            layers[next(reversed(layers))] += names
        else:
            layers[label] = early + names
            early = []
    return layers


def _is_stack(module: nn.Module) -> bool:
    """Whether a module holds several modules with weight matrices, each of which may be a layer."""
    parts = [c for c in module.children() if any(p.ndim > 1 for p in c.parameters())]
    return isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict) and len(parts) > 1
