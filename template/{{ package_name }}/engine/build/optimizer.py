"""Parameter groups and the optimizer; its state is kept by parameter name."""

from __future__ import annotations

import copy
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import UserError, nearest
from ..text import align
from .target import build, fits, hints

_OURS = ("groups", "layer_decay", "no_decay_norm_bias")

_RESERVED = ("params", "lr", "base_lr", "initial_lr")


def named_parameters(model: nn.Module, loss: nn.Module) -> dict[str, nn.Parameter]:
    """What is trained: the model's parameters, and the loss's as "loss.<name>"."""
    parameters = dict(model.named_parameters())
    parameters.update({f"loss.{name}": p for name, p in loss.named_parameters()})
    return {name: p for name, p in parameters.items() if p.requires_grad}


def build_optimizer(
    section: Mapping[str, Any],
    lr: float,
    model: nn.Module,
    parameters: dict[str, nn.Parameter],
    allowed: Iterable[str],
) -> Optimizer:
    """The optimizer over the config's parameter groups. Raises `UserError`.

    Every group has a `name`, its `names` (of parameters) and its `base_lr` = lr × lr_scale. Frozen
    parameters (`lr_scale: 0`) are in no group, need no gradient and are taken out of `parameters`.
    """
    groups = assign(section.get("groups"), parameters)
    if section.get("layer_decay") is not None:
        groups = _by_layer(groups, model, section["layer_decay"])
    apart = section.get("no_decay_norm_bias", False)
    if not isinstance(apart, bool):
        raise UserError(f"optimizer.no_decay_norm_bias={apart} must be true or false.")
    if apart:
        groups = _without_decay(groups, parameters)
    for group in groups:
        if group["lr_scale"] == 0:
            for name in group["names"]:
                parameters.pop(name).requires_grad_(False)
    groups = [group for group in groups if group["lr_scale"] > 0]
    if not groups:
        raise UserError("Nothing is left to train: every parameter is frozen by lr_scale=0.")
    for group in groups:
        group["params"] = [parameters[name] for name in group["names"]]
        group["base_lr"] = lr * group["lr_scale"]
        group["lr"] = group["base_lr"]
    options = {key: value for key, value in section.items() if key not in _OURS}
    given = {"params": groups, "lr": lr}
    optimizer: Optimizer = build(options, "optimizer", Optimizer, list(allowed), given=given)
    known = {*optimizer.defaults, "name", "names", "lr_scale", "base_lr", "params"}
    wanted = hints(type(optimizer))
    for group in groups:
        for key, value in group.items():
            if key not in known:
                raise UserError(
                    f"Unknown key '{key}' in the optimizer group '{group['name']}'."
                    f"{nearest(key, known)}"
                )
            if key not in ("params", "lr") and not fits(value, wanted.get(key)):
                raise UserError(
                    f"{key}={value!r} of the optimizer group '{group['name']}' is of the wrong type."
                )
    return optimizer


def assign(
    specs: Sequence[Mapping[str, Any]] | None, parameters: Mapping[str, nn.Parameter]
) -> list[dict[str, Any]]:
    """Each parameter's name to the first group whose `match` fits it. Raises `UserError`.

    `match` is a glob over parameter names ("layer1.*"), a regular expression after "re:", or a
    list of them. A pattern that fits nothing and a parameter that fits nowhere are refused.
    """
    if not parameters:
        raise UserError("The model has no parameter that can be trained.")
    if not specs:
        return [{"name": "all", "names": list(parameters), "lr_scale": 1.0}]
    if not isinstance(specs, list):
        raise UserError(
            f"optimizer.groups={specs!r} must be a list such as [{{name: head, match: 'fc.*'}}]."
        )
    left = list(parameters)
    groups: list[dict[str, Any]] = []
    for number, spec in enumerate(specs):
        if not isinstance(spec, Mapping) or "match" not in spec:
            raise UserError(
                f"optimizer.groups[{number}] needs a pattern: "
                "{name: head, match: 'fc.*', lr_scale: 1}."
            )
        name = str(spec.get("name", f"group{number}"))
        if name in (group["name"] for group in groups):
            raise UserError(f"Two optimizer groups are called '{name}'; give each its own name.")
        patterns = spec["match"] if isinstance(spec["match"], list) else [spec["match"]]
        taken: list[str] = []
        for pattern in map(str, patterns):
            fitting = [n for n in parameters if _fits(pattern, n)]
            if not fitting:
                near = nearest(pattern.strip("*."), [*_prefixes(parameters), *parameters])
                raise UserError(
                    f"The pattern '{pattern}' of the optimizer group '{name}' matches no "
                    f"parameter.{near}"
                )
            taken += [n for n in left if n in fitting and n not in taken]
        if not taken:
            raise UserError(
                f"The optimizer group '{name}' gets no parameter: groups before it match all of "
                f"{', '.join(patterns)}; the first match wins, so put it earlier."
            )
        left = [n for n in left if n not in taken]
        options = {str(k): v for k, v in spec.items() if k not in ("name", "match", "lr_scale")}
        for key in options:
            if key in _RESERVED:
                raise UserError(
                    f"'{key}' cannot be set in the optimizer group '{name}'; its rate is lr × "
                    "lr_scale."
                )
        scale = spec.get("lr_scale", 1.0)
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale < 1e9:
            raise UserError(
                f"lr_scale={scale} of the optimizer group '{name}' must be a number from 0 up."
            )
        groups.append({"name": name, "names": taken, "lr_scale": float(scale), **options})
    if left:
        raise UserError(
            f"No optimizer group matches {', '.join(left[:5])}{' …' if len(left) > 5 else ''} "
            f"({len(left)} parameters); end the groups with {{name: rest, match: '*'}}."
        )
    return groups


def _fits(pattern: str, name: str) -> bool:
    if pattern.startswith("re:"):
        try:
            return re.search(pattern[3:], name) is not None
        except re.error as error:
            raise UserError(f"The pattern '{pattern}' is no regular expression: {error}.") from None
    return fnmatch.fnmatchcase(name, pattern)


def _prefixes(names: Iterable[str]) -> list[str]:
    """The names of the modules that hold parameters, outermost first."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        for cut in range(1, len(parts)):
            found[".".join(parts[:cut])] = None
    return list(found)


def _by_layer(groups: list[dict[str, Any]], model: nn.Module, decay: Any) -> list[dict[str, Any]]:
    """Each group split by layer; a layer's rate is `decay` times that of the layer after it
    (Clark et al. 2020)."""
    if not fits(decay, float) or not 0 < decay <= 1:
        raise UserError(f"optimizer.layer_decay={decay} must be above 0 and at most 1.")
    layers = layers_in_order(model)
    last = len(layers) - 1

    def layer_of(name: str) -> int:
        for number in range(last, -1, -1):
            if any(name.startswith(f"{module}.") for module in layers[number]):
                return number
        # Embeddings and tokens that no module holds belong to the input, a loss to the output.
        return last if name.startswith("loss.") else 0

    split: list[dict[str, Any]] = []
    for group in groups:
        numbers = {name: layer_of(name) for name in group["names"]}
        for number in sorted(set(numbers.values())):
            names = [name for name in group["names"] if numbers[name] == number]
            label = f"{group['name']}/{layers[number][0]}"
            scale = group["lr_scale"] * decay ** (last - number)
            split.append({**group, "name": label, "names": names, "lr_scale": scale})
    return split


def layers_in_order(model: nn.Module) -> list[list[str]]:
    """The layers of a model from input to output, each as the names of its modules.

    A model may name them itself in an attribute or method `layers_in_order`. Otherwise the order
    of its children is taken: what holds a stack of blocks is opened up (ResNet's stages, ConvNeXt's
    features, a ViT's encoder), and a norm belongs to the layer before it. Raises `UserError`.
    """
    own = getattr(model, "layers_in_order", None)
    if own is not None:
        names = list(own() if callable(own) else own)
        known = dict(model.named_modules())
        for name in names:
            if name not in known:
                raise UserError(
                    f"layers_in_order of {type(model).__name__} names '{name}', but the model has "
                    f"no such module.{nearest(name, known)}"
                )
        return [[name] for name in names]
    layers: list[list[str]] = []

    def collect(module: nn.Module, path: str) -> None:
        children = _trained_children(module)
        for name, child in children.items():
            has_stack = any(_is_stack(inner, repeated=True) for inner in child.children())
            if (len(children) == 1 and _trained_children(child)) or _is_stack(child) or has_stack:
                collect(child, f"{path}{name}.")
            elif layers and all(p.ndim < 2 for p in child.parameters()):
                layers[-1].append(path + name)
            else:
                layers.append([path + name])

    collect(model, "")
    if len(layers) < 2:
        raise UserError(
            f"optimizer.layer_decay does not know the layers of {type(model).__name__}; give the "
            "model an attribute layers_in_order: the names of its modules from input to output."
        )
    return layers


def _trained_children(module: nn.Module) -> dict[str, nn.Module]:
    return {n: c for n, c in module.named_children() if next(c.parameters(), None) is not None}


def _is_stack(module: nn.Module, repeated: bool = False) -> bool:
    """Whether a module is a sequence of blocks (of one kind, with `repeated`), not of plain layers."""
    blocks = _trained_children(module).values()
    if not isinstance(module, nn.Sequential | nn.ModuleList) or not blocks:
        return False
    if repeated and (len(blocks) < 2 or len({type(block) for block in blocks}) > 1):
        return False
    return all(_trained_children(block) for block in blocks)


def _without_decay(
    groups: list[dict[str, Any]], parameters: Mapping[str, nn.Parameter]
) -> list[dict[str, Any]]:
    """Biases and the weights of norms (all that have one dimension) apart, without weight decay."""
    split: list[dict[str, Any]] = []
    for group in groups:
        plain = [n for n in group["names"] if parameters[n].ndim < 2]
        rest = [n for n in group["names"] if parameters[n].ndim >= 2]
        if rest:
            split.append({**group, "names": rest})
        if plain:
            name = f"{group['name']}/no_decay" if rest else group["name"]
            split.append({**group, "name": name, "names": plain, "weight_decay": 0.0})
    return split


def groups_but(optimizer: Optimizer, names: Iterable[str]) -> list[dict[str, Any]]:
    """The parameter groups that are not among `names`; what a group was split into counts as it.

    Raises `UserError` for a name that no group has.
    """
    left = list(optimizer.param_groups)
    for name in names:
        kept = [g for g in left if g["name"] != name and not g["name"].startswith(f"{name}/")]
        if len(kept) == len(left):
            known = [group["name"] for group in optimizer.param_groups]
            raise UserError(
                f"The task's trains(…) names the group '{name}', but optimizer.groups has "
                f"{', '.join(known)}.{nearest(name, known)}"
            )
        left = kept
    return left


def table(optimizer: Optimizer) -> list[str]:
    """The groups as lines of text: name, parameters, tensors, lr, weight decay."""
    rows = [("group", "parameters", "tensors", "lr", "decay")]
    for group in optimizer.param_groups:
        count = sum(p.numel() for p in group["params"])
        decay = f"{group['weight_decay']:g}" if "weight_decay" in group else "-"
        rows.append(
            (group["name"], f"{count:,}", f"{len(group['params'])}", f"{group['base_lr']:g}", decay)
        )
    return align(rows)


def optimizer_state(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, Any]]:
    """The optimizer's state (moments, step counts …) by parameter name."""
    return {name: dict(optimizer.state[p]) for name, p in parameters.items() if optimizer.state[p]}


def load_optimizer_state(
    optimizer: Optimizer,
    parameters: Mapping[str, nn.Parameter],
    state: Mapping[str, Mapping[str, Any]],
) -> None:
    """Give every parameter the state stored under its name."""
    names = {p: name for name, p in parameters.items()}
    current = optimizer.state_dict()
    by_index: dict[int, Any] = {}
    for group, numbered in zip(optimizer.param_groups, current["param_groups"], strict=True):
        for parameter, number in zip(group["params"], numbered["params"], strict=True):
            if names[parameter] in state:
                by_index[number] = dict(state[names[parameter]])
    optimizer.load_state_dict({"state": by_index, "param_groups": current["param_groups"]})


class Averaged:
    """An exponential moving average of a model's weights: e ← decay · e + (1 - decay) · w."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        own: list[Tensor] = list(self.model.parameters())
        new: list[Tensor] = [p.detach() for p in model.parameters()]
        torch._foreach_lerp_(own, new, 1 - self.decay)
        pairs = list(zip(self.model.buffers(), model.buffers(), strict=True))
        for dtype in (torch.float32, torch.int64):  # those of batch norm, in one call for each type
            same = [pair for pair in pairs if pair[0].dtype == dtype]
            if same:
                torch._foreach_copy_([mine for mine, _ in same], [theirs for _, theirs in same])
        for mine, theirs in pairs:
            if mine.dtype not in (torch.float32, torch.int64):
                mine.copy_(theirs)
