"""Load weights to start from (`init_from=`), and show which tensors matched."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UserError, one_line
from ..run import checkpoint
from ..text import say

_SHOWN = 8


def init_from(model: nn.Module, path: Path, rename: Sequence[str]) -> None:
    """Load the tensors that fit by name and shape, and print the others. Raises `UserError`.

    path: a checkpoint of a run (its averaged weights if it has them), a state dict, or a
    .safetensors file. rename: regular expressions "pattern=>replacement" for the file's keys.
    """
    found = read_weights(path)
    for rule in rename:
        pattern, replacement = rule.split("=>", 1)
        try:
            renamed = {re.sub(pattern, replacement, key): value for key, value in found.items()}
        except re.error as error:
            raise UserError(f"init_rename: '{rule}' does not work: {error}.") from None
        if len(renamed) < len(found):
            raise UserError(f"init_rename: '{rule}' gives two keys of {path} the same name.")
        found = renamed
    own = model.state_dict()
    fitting = {k: v for k, v in found.items() if k in own and own[k].shape == v.shape}
    others = {
        "missing in the file, left as initialised": [k for k in own if k not in found],
        "in the file only, not used": [k for k in found if k not in own],
        "other shape, left as initialised": [k for k in found if k in own and k not in fitting],
    }
    if not fitting:
        raise UserError(
            f"No tensor in {path} fits the model. Its first key is '{next(iter(found), '')}', the "
            f"model's '{next(iter(own), '')}'. Rename keys with \"init_rename=['^prefix[.]=>']\"."
        )
    model.load_state_dict(fitting, strict=False)
    say(f"init_from={path}: loaded {len(fitting)} of {len(own)} tensors of the model.")
    for what, keys in others.items():
        if keys:
            rows = [
                k + " instead of".join(f" {tuple(s[k].shape)}" for s in (found, own) if k in s)
                for k in keys[:_SHOWN]
            ]
            more = f" … and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            say(f"  {what}: {', '.join(rows)}{more}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file, on the CPU. Runs no code from it. Raises `UserError`."""
    if not path.is_file():
        raise UserError(f"init_from={path}: the file {path.absolute()} does not exist.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise errors of many types
        raise UserError(f"init_from={path} cannot be read: {one_line(error)[:150]}.") from error
    if isinstance(state, dict) and state.get("format") == checkpoint.FORMAT and "model" in state:
        state = state["ema"] or state["model"]
    elif isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"init_from={path} is not a state dict: a dict of tensors by name.")
    return state
