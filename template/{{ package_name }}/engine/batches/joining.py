"""Join samples into a batch, and say which samples do not fit together."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import default_collate

from ..errors import UserError


def joined(samples: list[Any], indices: Sequence[int]) -> Any:
    """Return the batch that torch makes of samples. Raises `UserError`, which names two of them."""
    try:
        return default_collate(samples)
    except Exception as error:  # torch raises many kinds, and your types may raise any
        first, one = _described(samples[0]), None
        for sample, index in zip(samples, indices, strict=True):
            try:
                default_collate([samples[0], sample])
            except Exception:  # the same error with two samples: this is the one
                one = f"Sample {index} is {_described(sample)}"
                break
        if one is None:
            raise
        which = f", but sample {indices[0]} is {first}" if index != indices[0] else ""
        raise UserError(
            f"{one}{which}. torch cannot join them into a batch. Let all samples be tensors or numbers "
            "of one shape, or give the data a `collate`."
        ) from error


def _described(sample: Any) -> str:
    """Return the shapes and types of a sample, such as "(3×8×8, int)"."""
    if isinstance(sample, Mapping):
        return "{" + ", ".join(f"{key}: {_described(value)}" for key, value in sample.items()) + "}"
    if isinstance(sample, list | tuple):
        return f"({', '.join(map(_described, sample))})"
    shape = getattr(sample, "shape", None)
    if isinstance(shape, tuple) and shape:
        return "×".join(map(str, shape))
    return type(sample).__name__
