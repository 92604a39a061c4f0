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
    expected, section = getattr(parts.model, "trained_on", None), parts.config.data
    if not isinstance(expected, Mapping):
        return ""
    dataset: Any = parts.train.reader.dataset
    channels, *sides = parts.data.info.get("shape", (3,))
    found = {}
    if hasattr(dataset, "offset") and hasattr(dataset, "scale"):  # see datasets/windows.py
        found["mean"] = dataset.offset.flatten().cpu() / 255
        found["std"] = 1 / (255 * dataset.scale.flatten().cpu())
    differing: dict[str, Any] = {}
    for key in ("mean", "std"):
        values = list(expected[key])
        if len(values) != channels:
            values = [round(sum(values) / len(values), 4)]
        if key not in found or not torch.allclose(found[key], torch.tensor(values), atol=0.01):
            differing[key] = values
    if any(side != expected["size"] for side in sides):
        differing["size"] = expected["size"]
        if section.get("size") not in (None, *sides[:1], sides):  # it counts samples
            section = {key: value for key, value in section.items() if key != "size"}
    if getattr(dataset, "interpolation", expected["interpolation"]) != expected["interpolation"]:
        differing["interpolation"] = expected["interpolation"]
    if not differing:
        return ""
    shown = {key: str(value).replace(" ", "") for key, value in differing.items()}
    settable = [f"data.{key}={value}" for key, value in shown.items() if key in section]
    others = [f"{key} {value}" for key, value in shown.items() if key not in section]
    text = "The model's weights may expect other pictures than yours."
    if settable:
        text += f" To prepare yours in the same way, add {' '.join(settable)} to the command."
    if others:
        text += f" The data set has no key for {', '.join(others)}."
    return text
