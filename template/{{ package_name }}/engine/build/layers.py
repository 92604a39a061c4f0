"""The layers of a model from input to output, for `optimizer.layer_decay`."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from ..errors import UserError, nearest


def layers_in_order(model: nn.Module) -> dict[str, list[str]]:
    """Return the names of each layer's parameters, by the name of the layer. Raises `UserError`.

    A model may list its layers in an attribute or method `layers_in_order`: names of modules, or
    lists of names that are one layer. Other parameters, such as position embeddings, belong to the
    first layer. timm's models have a `group_matcher`, those of torchvision are in layers.yaml, and an
    nn.Sequential says its order. A model that only wraps another has the layers of the other.
    """
    layers = _known_layers(model)
    if len(layers) < 2:
        raise UserError(
            f"optimizer.layer_decay needs the order of the layers of {type(model).__name__}. Give it "
            "an attribute `layers_in_order`: the names of its modules from input to output."
        )
    return layers


def _known_layers(model: nn.Module) -> dict[str, list[str]]:
    own = getattr(model, "layers_in_order", None)
    if own is not None:
        return _listed(model, own() if callable(own) else own)
    if hasattr(model, "group_matcher"):
        from timm.models import group_parameters

        layers = group_parameters(model, model.group_matcher())  # type: ignore[operator]
        return {f"layer{number}": layers[number] for number in sorted(layers)}
    families: Any = OmegaConf.load(Path(__file__).with_name("layers.yaml"))
    for kind in type(model).__mro__:
        if kind.__name__ in families:
            return _matched(model, families[kind.__name__])
    children = [child for child in model.named_children() if list(child[1].parameters())]
    if len(children) == 1 and not list(model.parameters(recurse=False)):  # it wraps another model
        ((path, inner),) = children
        inside = _known_layers(inner)
        return {f"{path}.{k}": [f"{path}.{n}" for n in names] for k, names in inside.items()}
    parts = [part for _, child in children for part in child.modules()]
    is_chain = isinstance(model, nn.Sequential) and not any(map(_is_stack, parts))
    return _matched(model, r"([^.]+)") if is_chain else {}


def _listed(model: nn.Module, entries: Iterable[Any]) -> dict[str, list[str]]:
    """Return the layers of a list of modules or of lists of modules."""
    modules = [list(e) if isinstance(e, list | tuple) else [e] for e in entries]
    known = [name for name, _ in model.named_modules()]
    for name in [name for layer in modules for name in layer]:
        if name not in known:
            raise UserError(
                f"layers_in_order of {type(model).__name__} must list names of modules, or lists of "
                f"names. {name!r} is not a module of it.{nearest(str(name), known)}"
            )
    layers: dict[str, list[str]] = {layer[0]: [] for layer in modules}
    for name, _ in model.named_parameters():
        inside = [layer for layer in modules if any(name.startswith(f"{m}.") for m in layer)]
        layers[inside[-1][0] if inside else modules[0][0]].append(name)
    return layers


def _matched(model: nn.Module, pattern: str) -> dict[str, list[str]]:
    """Return the layers of a pattern of layers.yaml, none if it does not fit all parameters.

    A norm (all its parameters have one dimension) belongs to the layer before it.
    """
    parameters = dict(model.named_parameters())
    labels: dict[str, Any] = {name: re.match(rf"(?:{pattern})\b", name) for name in parameters}
    if not all(labels.values()):
        return {}
    has_matrix = {match[1] for name, match in labels.items() if parameters[name].ndim > 1}
    layers: dict[str, list[str]] = {}
    early: list[str] = []  # parameters before the first layer
    for name, match in labels.items():
        if match[1] and (match[1] in has_matrix or not layers):
            layers.setdefault(match[1], [] if layers else early).append(name)
        else:
            (layers[next(reversed(layers))] if layers else early).append(name)
    return layers


def _is_stack(module: nn.Module) -> bool:
    """Whether a module holds several modules with weight matrices, each of which may be a layer."""
    parts = [c for c in module.children() if any(p.ndim > 1 for p in c.parameters())]
    return isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict) and len(parts) > 1
