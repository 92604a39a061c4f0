"""The layers of a model from input to output, for `optimizer.layer_decay`."""

from torch import nn

from ..errors import UserError, nearest


def layers_in_order(model: nn.Module) -> dict[str, list[str]]:
    """Return the names of each layer's parameters, by the name of the layer. Raises `UserError`.

    A model may list its layers in an attribute or method `layers_in_order`: names of modules, or
    lists of names that are one layer. timm's models have a method `group_matcher` for this.
    Otherwise `_children` must know the layers. Parameters of no listed module, such as position
    embeddings, belong to the first layer.
    """
    own = getattr(model, "layers_in_order", None)
    if own is None and hasattr(model, "group_matcher"):
        from timm.models import group_parameters

        layers = group_parameters(model, model.group_matcher())  # type: ignore[operator]
        return {f"layer{number}": layers[number] for number in sorted(layers)}
    if own is None:
        modules = _children(model)
    else:
        entries = own() if callable(own) else own
        modules = [[entry] if isinstance(entry, str) else list(entry) for entry in entries]
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


def _children(model: nn.Module) -> list[list[str]]:
    """Return the model's children in order, each a layer, as the names of its modules.

    Each block of an nn.Sequential of blocks is a layer of its own. A norm belongs to the layer
    before it. Other containers of blocks do not say in which order they run, so they are refused.
    """
    layers: list[list[str]] = []

    def collect(module: nn.Module, path: str) -> None:
        for name, child in _trained_children(module).items():
            if _is_sequence_of_blocks(child):
                collect(child, f"{path}{name}.")
            elif layers and all(p.ndim < 2 for p in child.parameters()):
                layers[-1].append(path + name)
            else:
                layers.append([path + name])

    top, path = model, ""
    while len(children := _trained_children(top)) == 1:  # a model that only wraps another
        ((name, top),) = children.items()
        path += f"{name}."
    hidden = [
        inner
        for child in children.values()
        if not _is_sequence_of_blocks(child)
        for inner in child.modules()
        if _is_sequence_of_blocks(inner)
        or (isinstance(inner, nn.ModuleList | nn.ModuleDict) and len(_trained_children(inner)) > 1)
    ]
    if hidden or len(children) < 2:
        raise UserError(
            f"optimizer.layer_decay needs the order of the layers of {type(model).__name__}. Give it an "
            "attribute `layers_in_order`: the names of its modules from input to output."
        )
    collect(top, path)
    return layers


def _trained_children(module: nn.Module) -> dict[str, nn.Module]:
    return {n: c for n, c in module.named_children() if next(c.parameters(), None) is not None}


def _is_sequence_of_blocks(module: nn.Module) -> bool:
    """Return whether `module` is an nn.Sequential of modules that hold trained modules."""
    blocks = list(map(_trained_children, _trained_children(module).values()))
    return isinstance(module, nn.Sequential) and bool(blocks) and all(blocks)
