"""Any classification model of torchvision, for the channels, size and classes of the data."""

from typing import Any

import torch
from torch import nn

from ..errors import UserError, nearest, one_line

_AUXILIARY = ("googlenet", "inception_v3")  # by default, they return more than logits in training


def torchvision_model(
    name: str, shape: tuple[int, int, int], classes: int, pretrained: bool = False
) -> nn.Module:
    """Return the model `name` of `torchvision.models.list_models(torchvision.models)`.

    Its parameters and its state dict keep torchvision's names. `pretrained` starts from torchvision's
    default weights, with a new classifier. For pictures without three channels, the first
    convolution is averaged over its channels.
    """
    from torchvision import models  # slow to import

    names = models.list_models(models)
    if name not in names:
        raise UserError(f"model.name={name} is not a model of torchvision.{nearest(name, names)}")
    if pretrained:
        net = _pretrained(name, classes)
    else:
        options: dict[str, Any] = {}
        if name in _AUXILIARY:
            options = {"aux_logits": False, "init_weights": True}
        if name.startswith("maxvit"):
            options["input_size"] = shape[1:]
        if name.startswith("vit_"):
            options["image_size"] = shape[1]
        net = models.get_model(name, weights=None, num_classes=classes, **options)
    if shape[0] != 3:
        _replace_first_convolution(net, shape[0], keep=pretrained)
    return net


def _pretrained(name: str, classes: int) -> Any:
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
    try:
        net: Any = models.get_model(name, weights=weights)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"The weights of {name} are not in {torch.hub.get_dir()}/checkpoints and cannot be "
            f"downloaded ({one_line(error)}). Put {weights.url} there, or set model.pretrained=false."
        ) from error
    made = weights.transforms()
    net.trained_on = {"mean": made.mean, "std": made.std, "size": made.crop_size[0]}
    net.trained_on["interpolation"] = made.interpolation.value  # see log/announce.py
    if name in _AUXILIARY:
        net.aux_logits = False
        net.aux1 = net.aux2 = net.AuxLogits = None
    kinds = nn.Linear | nn.Conv2d
    path, last = [(n, m) for n, m in net.named_modules() if isinstance(m, kinds)][-1]
    if isinstance(last, nn.Linear):
        net.set_submodule(path, nn.Linear(last.in_features, classes))
    else:  # SqueezeNet ends in a convolution
        net.set_submodule(path, nn.Conv2d(last.in_channels, classes, kernel_size=1))
    return net


def _replace_first_convolution(net: nn.Module, channels: int, keep: bool) -> None:
    path, old = next((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d))
    kept: Any = {name: getattr(old, name) for name in ("kernel_size", "stride", "padding")}
    new = nn.Conv2d(channels, old.out_channels, bias=old.bias is not None, **kept)
    if keep:  # the response to a grey picture stays the same, with any number of channels
        mean = old.weight.detach().sum(1, keepdim=True) / channels
        new.weight, new.bias = nn.Parameter(mean.repeat(1, channels, 1, 1)), old.bias
    if hasattr(net, "transform_input"):
        net.transform_input = False  # type: ignore[assignment]  # it normalises three channels
    net.set_submodule(path, new)
