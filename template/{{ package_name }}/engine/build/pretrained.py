"""Pretrained weights expect pictures like those that they were trained on."""

from collections.abc import Mapping
from typing import Any

import torch

from .parts import Parts


def other_pictures(parts: Parts) -> str:
    """Say how the data differ from the pictures that the model's weights were trained on, or "".

    A model with pretrained weights has an attribute `trained_on`: a dict with `mean` and `std`, one
    number for each channel, the `size` in pixels and the `interpolation`.
    """
    expected, data = getattr(parts.model, "trained_on", None), parts.config.data
    if not isinstance(expected, Mapping):
        return ""
    dataset: Any = parts.train.reader.dataset
    channels, *sides = parts.data.info.get("shape", (3,))
    differing: dict[str, Any] = {}
    known = hasattr(dataset, "offset") and hasattr(dataset, "scale")  # see datasets/windows.py
    own = {"mean": dataset.offset / 255, "std": 1 / (255 * dataset.scale)} if known else {}
    for key in ("mean", "std"):
        values = list(expected[key])
        if len(values) != channels:
            values = [round(sum(values) / len(values), 4)]
        wanted = torch.tensor(values).view(-1, 1, 1)
        if not known or not torch.allclose(own[key].cpu(), wanted, atol=0.01):
            differing[key] = values
    if any(side != expected["size"] for side in sides):
        differing["size"] = expected["size"]
    if getattr(dataset, "interpolation", expected["interpolation"]) != expected["interpolation"]:
        differing["interpolation"] = expected["interpolation"]
    shown = {key: str(value).replace(" ", "") for key, value in differing.items()}
    # The key `size` of some data is their number of samples.
    keys = data.keys() - (set() if data.get("size") in (None, *sides[:1], sides) else {"size"})
    text = "The model's weights may expect other pictures than yours."
    if settable := [f"data.{key}={value}" for key, value in shown.items() if key in keys]:
        text += f" To prepare yours in the same way, add {' '.join(settable)} to the command."
    if others := [f"{key} {value}" for key, value in shown.items() if key not in keys]:
        text += f" The data set has no key for {', '.join(others)}."
    return text if shown else ""
