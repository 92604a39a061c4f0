"""Any image classification model of timm, for the channels, size and classes of the data."""

from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UserError, nearest, one_line


def timm_model(
    name: str,
    shape: tuple[int, int, int],
    classes: int,
    pretrained: bool = False,
    weights: str | None = None,
    **options: Any,
) -> nn.Module:
    """Return the model `name` of `timm.list_models()`, such as "convnext_tiny.fb_in22k".

    `pretrained` starts from timm's weights, with a new classifier. `weights` is a file with these
    weights; without it, timm downloads them. `options` go to `timm.create_model`.
    """
    try:
        import timm
    except ModuleNotFoundError:
        raise UserError("The package timm is not installed. Install it: uv add timm") from None
    names = timm.list_models()
    if name.split(".")[0] not in names:
        raise UserError(f"model.name={name} is not a model of timm.{nearest(name, names)}")
    if weights is not None and not (pretrained and Path(weights).is_file()):
        raise UserError(f"model.weights={weights} must be a file, with model.pretrained=true.")
    known: Any = timm.get_pretrained_cfg(name)
    if known is not None and known.fixed_input_size:
        options.setdefault("img_size", shape[1:])
    options["in_chans"] = shape[0]
    if not pretrained:
        return timm.create_model(name, num_classes=classes, **options)
    file = None if weights is None else {"file": weights}
    if file is None and known and known.hf_hub_id:
        _ask_hub(known.hf_hub_id)
    try:
        # Only with the classifier of the weights does timm refuse a file that lacks a tensor.
        net: Any = timm.create_model(name, True, pretrained_cfg_overlay=file, **options)
    except Exception as error:  # a missing network and a damaged file raise errors of many types
        source = (known and (known.hf_hub_id or known.url)) or "its authors"
        raise UserError(
            f"The weights of {name} cannot be loaded ({one_line(error)[:200]}). Get the file from "
            f"{source} and set model.weights=PATH, or set model.pretrained=false."
        ) from error
    net.reset_classifier(classes)
    found = net.pretrained_cfg
    net.trained_on = {key: found[key] for key in ("mean", "std", "interpolation")}
    net.trained_on["size"] = found["input_size"][1]
    return net  # type: ignore[no-any-return]


def _ask_hub(name: str) -> None:
    """Let timm read only its cache if the Hub does not answer: it would ask for two minutes."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import HfHubHTTPError

    try:
        HfApi().model_info(name, timeout=5)
    except Exception as error:  # each version has other types for the errors of a network
        constants.HF_HUB_OFFLINE = not isinstance(error, HfHubHTTPError)
