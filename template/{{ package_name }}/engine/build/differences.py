"""Say where two values differ first: nested containers, tensors, modules, generators."""

import pickle
import random
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = bool | int | float | complex | str | bytes | None
_GENERATORS = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


def difference(before: Any, after: Any) -> str:
    """Say where and how two values differ first, such as ".fc[0, 3]: 0.1 → 0.2". Empty: nowhere."""
    if before is after:
        return ""
    before, after = _opened(before), _opened(after)
    if isinstance(before, dict) and isinstance(after, dict):
        pairs = ((key, before.get(key), after.get(key)) for key in {**before, **after})
        return next((key + how for key, a, b in pairs if (how := difference(a, b))), "")
    if isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
        if before.shape != after.shape:
            return f": shape {list(before.shape)} → {list(after.shape)}"
        both_nan = (before != before) & (after != after)
        for place in np.argwhere((before != after) & ~both_nan).tolist()[:1]:
            return f"{place or ''}: {before[*place]} → {after[*place]}"
        return ""
    if isinstance(before, str) and isinstance(after, str) and before == after:
        return ""
    texts = (v[:40] if isinstance(v, str) else type(v).__name__ for v in (before, after))
    return f": {' → '.join(texts)}"


def _opened(value: Any) -> dict[str, Any] | np.ndarray | str:
    """Return the entries of a container by their place, or an array, or a value as a text."""
    value = value.state_dict() if isinstance(value, nn.Module) else value
    if isinstance(value, Mapping):
        return {f".{key}": entry for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        value = sorted(value, key=repr) if isinstance(value, set) else value
        return {f"[{number}]": entry for number, entry in enumerate(value)}
    if isinstance(value, Tensor):  # numpy has no bfloat16
        value = value.detach().cpu()
        value = value if value.layout is torch.strided else value.to_dense()
        return (value.double() if value.is_floating_point() else value).numpy()
    if isinstance(value, _GENERATORS):
        return f"state {zlib.crc32(pickle.dumps(value))}"
    if isinstance(value, np.ndarray):
        return value
    # All other objects of one class count as equal.
    return repr(value) if isinstance(value, _PLAIN) else type(value).__name__
