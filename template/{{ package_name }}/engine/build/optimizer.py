"""The parameter groups, by name and by layer, and the optimizer over them."""

import fnmatch
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor, nn, strided
from torch.optim import Optimizer

from ..errors import UserError, nearest
from ..text import align
from .optimizer_state import OF_THE_ENGINE, Groups, check_resumes, named_tensors
from .target import argument_types, build, has_type


def named_parameters(model: nn.Module, loss: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trained parameters of the model, and those of the loss as "loss.<name>"."""
    named = [*model.named_parameters(), *loss.named_parameters("loss")]
    first = {id(p): name for name, p in reversed(named)}  # the loss may share some of the model
    return {name: p for name, p in named if p.requires_grad and first[id(p)] == name}


def build_optimizer(
    section: Mapping[str, Any],
    lr: float,
    model: nn.Module,
    parameters: dict[str, nn.Parameter],
    allowed: Sequence[str],
) -> Optimizer:
    """Return the optimizer over the config's parameter groups. Raises `UserError`.

    Every group has a `name`, the `names` of its parameters and its `base_lr` = lr × lr_scale. The
    parameters of a frozen group (`lr_scale: 0`) get no gradient and are removed from `parameters`.
    """
    groups = assign_groups(section.get("groups"), parameters)
    if section.get("layer_decay") is not None:
        groups = _by_layer(groups, model, section["layer_decay"])
    no_decay = section.get("no_decay_norm_bias", False)
    if not isinstance(no_decay, bool):
        raise UserError(f"optimizer.no_decay_norm_bias={no_decay} must be true or false.")
    if no_decay:
        groups = _without_decay(groups, parameters)
    for group in groups:
        group["params"] = [parameters[name] for name in group["names"]]
        group["base_lr"] = group["lr"] = lr * group["lr_scale"]
        if group["lr_scale"] == 0:
            for name in group["names"]:
                parameters.pop(name).requires_grad_(False)
    groups = [group for group in groups if group["lr_scale"] > 0]
    if not groups:
        raise UserError("All parameters are frozen. Give one optimizer group an lr_scale above 0.")

    def make(groups: Groups) -> Optimizer:
        own = [dict(group) for group in groups]  # an optimizer adds its options to them
        return build(section, "optimizer", Optimizer, allowed, params=own, lr=lr)

    optimizer = make(groups)
    known = {*optimizer.defaults, *OF_THE_ENGINE}
    wanted = argument_types(type(optimizer))
    for group in groups:
        where = f"the optimizer group '{group['name']}'"
        for key, value in group.items():
            if key not in known:
                raise UserError(f"Unknown key '{key}' in {where}.{nearest(key, known)}")
            if key not in ("params", "lr") and not has_type(value, wanted.get(key)):
                raise UserError(f"{key}={value!r} of {where} has the wrong type.")
    tables = (name for name, module in model.named_modules() if getattr(module, "sparse", False))
    check_resumes(make, groups, [f"{name}.weight".lstrip(".") for name in tables])
    return optimizer


def assign_groups(
    specs: Sequence[Mapping[str, Any]] | None, parameters: Mapping[str, nn.Parameter]
) -> Groups:
    """Assign each parameter to the first group whose `match` fits its name. Raises `UserError`.

    `match` is a glob over parameter names ("layer1.*"), a regular expression after "re:", or a
    list of these. Every pattern must match a parameter, and every parameter must match a pattern.
    """
    specs = [{"name": "all", "match": "*"}] if specs in (None, []) else specs
    is_list = isinstance(specs, list)
    if not is_list or not all(isinstance(spec, Mapping) and "match" in spec for spec in specs):
        raise UserError("Each of the optimizer.groups needs a pattern: [{name: a, match: 'fc.*'}].")
    left = dict.fromkeys(parameters)
    groups: dict[str, dict[str, Any]] = {}
    for number, spec in enumerate(specs):
        group = {"lr_scale": 1.0, **{str(key): value for key, value in spec.items()}}
        name = group["name"] = str(group.get("name", f"group{number}"))
        where = f"the optimizer group '{name}'"
        if name in groups:
            raise UserError(f"Two optimizer groups are called '{name}'. Give each its own name.")
        if reserved := group.keys() & {"lr", "base_lr", "params", "names"}:
            raise UserError(f"Set lr_scale in place of {min(reserved)} in {where}.")
        scale, match = group["lr_scale"], group.pop("match")
        if not has_type(scale, float) or not 0 <= scale < 1e9:
            raise UserError(f"lr_scale={scale} of {where} must be a number, 0 or more.")
        patterns = match if isinstance(match, list) else [match]
        matching = [n for pattern in patterns for n in _matching(str(pattern), parameters, where)]
        group["names"] = [n for n in dict.fromkeys(matching) if n in left]
        if not group["names"]:
            raise UserError(f"Earlier groups take all of {where}. Put it before them.")
        for taken in group["names"]:
            del left[taken]
        groups[name] = group
    for other in left:
        raise UserError(f"No optimizer group matches {other}. Add a last group {{match: '*'}}.")
    return list(groups.values())


def _matching(pattern: str, names: Collection[str], where: str) -> list[str]:
    if pattern in names:
        return [pattern]
    is_glob = not pattern.startswith("re:")
    try:
        expression = re.compile(rf"\A{fnmatch.translate(pattern)}" if is_glob else pattern[3:])
    except re.error as error:
        raise UserError(f"'{pattern}' is not a regular expression: {error}.") from None
    if found := [name for name in names if expression.search(name)]:
        return found
    known = [k for name in names for k in accumulate(name.split("."), "{}.{}".format)]  # modules
    near = nearest(pattern.strip("*."), known)
    raise UserError(f"The pattern '{pattern}' of {where} matches no parameter.{near}")


def _by_layer(groups: Groups, model: nn.Module, decay: Any) -> Groups:
    """Split each group by layer. Its lr is `decay` times the next layer's (Clark et al. 2020)."""
    if not has_type(decay, float) or not 0 < decay <= 1:
        raise UserError(f"optimizer.layer_decay={decay} must be above 0 and at most 1.")
    layers = layers_in_order(model)
    number_of = {name: number for number, names in enumerate(layers.values()) for name in names}
    last = len(layers) - 1
    split: Groups = []
    for group in groups:
        for number, label in enumerate(layers):
            # A loss belongs to the last layer.
            names = [name for name in group["names"] if number_of.get(name, last) == number]
            scale = group["lr_scale"] * decay ** (last - number)
            own = {"name": f"{group['name']}/{label}", "names": names, "lr_scale": scale}
            split += [{**group, **own}] if names else []
    return split


def _without_decay(groups: Groups, parameters: Mapping[str, nn.Parameter]) -> Groups:
    """Move biases and norms (all parameters of one dimension) to groups without weight decay."""
    split: Groups = []
    for group in groups:
        plain = [name for name in group["names"] if parameters[name].ndim < 2]
        rest = [name for name in group["names"] if parameters[name].ndim >= 2]
        bare = {**group, "names": plain, "weight_decay": 0.0}
        bare["name"] += "/no_decay" if rest else ""
        split += [part for part in ({**group, "names": rest}, bare) if part["names"]]
    return split


def groups_except(optimizer: Optimizer, names: Iterable[str]) -> Groups:
    """Return all groups except those in `names` and the parts that those were split into. Raises `UserError`."""
    left = list(optimizer.param_groups)
    for name in names:
        kept = [g for g in left if g["name"] != name and not g["name"].startswith(f"{name}/")]
        if len(kept) == len(left):
            known = ", ".join(group["name"] for group in optimizer.param_groups)
            raise UserError(f"The task's trains(…) names the group '{name}'. Groups: {known}.")
        left = kept
    return left


def group_table(optimizer: Optimizer) -> list[str]:
    rows = [("group", "parameters", "tensors", "lr", "decay")]
    for group in optimizer.param_groups:
        sizes = [p.numel() for p in group["params"]]
        values = [f"{group[key]:g}" if key in group else "-" for key in ("base_lr", "weight_decay")]
        rows.append((group["name"], f"{sum(sizes):,}", str(len(sizes)), *values))
    return align(rows)


def check_trained(optimizer: Optimizer, model: nn.Module, loss: nn.Module) -> None:
    """Refuse parameters that only the model or only the optimizer holds. Raises `UserError`."""
    trained = {id(p): name for name, p in named_tensors(optimizer.param_groups)}
    held = {id(p) for p in (*model.parameters(), *loss.parameters())}
    names = [n for n, p in named_parameters(model, loss).items() if id(p) not in trained]
    names += [name for number, name in trained.items() if number not in held]
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise UserError(
            f"The optimizer does not train the parameter {names[0]}{more}: it was made, replaced or "
            "unfrozen after __init__. Do so in __init__, or leave groups out in the task's trains(ctx)."
        )


def tensor_shapes(model: nn.Module, loss: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor that a checkpoint holds of the model and the loss."""
    state = {**model.state_dict(), **loss.state_dict(prefix="loss.")}
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    for key, value in tensors.items():
        if value.layout is not strided:
            raise UserError(f"The tensor {key} is sparse. Make it dense, or set persistent=False.")
    return {key: tuple(value.shape) for key, value in tensors.items()}


def check_shapes(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Refuse a model whose tensors change shape: no checkpoint would fit it. Raises `UserError`."""
    for key in (*before, *after):
        one, other = before.get(key, "absent"), after.get(key, "absent")
        if one != other:
            how = f"changes its shape in training ({one} → {other})"
            raise UserError(f"The model's tensor {key} {how}. Give it its full shape in __init__.")


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
    """Return the layers of a pattern of layers.yaml, none if it does not fit all parameters."""
    parameters = dict(model.named_parameters())
    labels: dict[str, Any] = {name: re.match(rf"(?:{pattern})\b", name) for name in parameters}
    if not all(labels.values()):
        return {}
    # A norm (all its parameters have one dimension) belongs to the layer before it.
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
