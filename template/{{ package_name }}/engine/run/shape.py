"""What a checkpoint and a manifest must hold: a file of another shape cannot be what it says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_TEXT = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
CHECKPOINT, MANIFEST = yaml.safe_load(_TEXT).values()


def misfit(value: Any, shape: Any, place: str = "") -> str | None:
    """Return the dotted key of the first value that does not fit, "" for `value` itself, or None.

    shape: as shape.yaml explains. A bool is no int.
    """
    if isinstance(shape, list) and len(shape) > 1:
        found = [misfit(value, one, place) for one in shape]
        return None if None in found else max(filter(None, found), key=len, default=place)
    if isinstance(shape, dict) and isinstance(value, Mapping):
        if "each" in shape:
            entries = [(f".{key}", one, shape["each"]) for key, one in value.items()]
        else:
            keys = [key for key in shape if key[-1] != "?" or key[:-1] in value]
            entries = [(f".{k.rstrip('?')}", value.get(k.rstrip("?"), ...), shape[k]) for k in keys]
    elif isinstance(shape, list) and isinstance(value, list | tuple):
        entries = [(f"[{i}]", one, shape[0]) for i, one in enumerate(value)]
    else:
        names = shape.split(" | ") if isinstance(shape, str) else ()
        return None if "any" in names or type(value).__name__ in names else place
    inner = (misfit(one, own, f"{place}{key}".lstrip(".")) for key, one, own in entries)
    return next((found for found in inner if found is not None), None)
