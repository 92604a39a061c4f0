"""What a checkpoint and a manifest must hold: a file of another shape cannot be what it says."""

from collections.abc import Mapping
from typing import Any

NUMBER = (int, float)
TENSOR = "Tensor"  # by its name: a manifest is read without torch

_SUMS = {str: [NUMBER]}

CHECKPOINT: dict[Any, Any] = {
    **{"step": int, "epoch": int, "config": str, "pending": bool},
    **{"model": {str: TENSOR}, "ema": ({str: TENSOR}, None), "loss": {str: TENSOR}},
    "optimizer": {str: {str: object}},
    "optimizer_values?": {"state": dict, "param_groups": {str: {str: object}}},
    "scheduler": {"step": int},
    "scaler": {str: object},
    "fingerprint": {"data": str},
    "windows": {
        **{"train": _SUMS, "train_epoch": _SUMS, "seen": [str], "step": int},
        "named": {str: {"state": [NUMBER], "rows": TENSOR}},
    },
    "best": {
        **{"value": (NUMBER, None), "saved": (NUMBER, None), "last": (NUMBER, None)},
        **{"not_better": int, "observed?": (NUMBER, None)},
    },
}

MANIFEST: dict[Any, Any] = {
    "status": str,
    "started?": str,
    "fingerprint?": {"data": str, "versions": {str: object}, "threads": int, "world_size": int},
    "result?": (
        {"steps": int, "monitor?": str, "stopped_early?": (str, None), "weights_sha256?": str},
        None,
    ),
    "resumed?": [{"step": int, "extended": {str: object}, "differences": [str]}],
    "git?": ({"commit": str, "diff": str}, None),
    "command?": [str],
    "overrides?": [str],
}


def misfit(value: Any, shape: Any, place: str = "") -> str | None:
    """Return the dotted key of the first value of another type, "" for `value` itself, or None.

    shape: a type; TENSOR; None; a tuple of allowed shapes; [shape of each entry]; {key: shape}, where "key?"
    may be absent; or {str: shape of each value}. A bool does not count as a number.
    """
    if isinstance(shape, tuple):
        found = [misfit(value, one, place) for one in shape]
        return None if None in found else max(filter(None, found), key=len, default=place)
    if isinstance(shape, dict) and isinstance(value, Mapping):
        if str in shape:
            entries = [(key, shape[str]) for key in value]
        else:
            names = [(key.rstrip("?"), key[-1] == "?", inner) for key, inner in shape.items()]
            if missing := [k for k, optional, _ in names if k not in value and not optional]:
                return f"{place}.{missing[0]}".lstrip(".")
            entries = [(key, inner) for key, _, inner in names if key in value]
        inner = (misfit(value[key], one, f"{place}.{key}".lstrip(".")) for key, one in entries)
        return next((found for found in inner if found is not None), None)
    if isinstance(shape, list) and isinstance(value, list | tuple):
        inner = (misfit(one, shape[0], f"{place}[{i}]") for i, one in enumerate(value))
        return next((found for found in inner if found is not None), None)
    if shape is None or isinstance(shape, dict | list):
        return None if value is None and shape is None else place
    if shape == TENSOR:
        return None if type(value).__name__ == TENSOR else place
    fits = isinstance(value, shape) and not (
        isinstance(value, bool) and shape not in (bool, object)
    )
    return None if fits else place
