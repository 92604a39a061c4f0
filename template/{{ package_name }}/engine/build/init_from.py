"""Load weights to start from (`init_from=`), and show which tensors matched."""

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, one_line
from ..run import checkpoint
from ..text import say

_SHOWN = 8
_INSIDE = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
"""Where other programs' files keep the state dict; averaged weights come first."""
_PREFIX = re.compile(r"(module|_orig_mod|model|net|backbone)\.")
"""What other programs' wrappers put before the keys."""


def init_from(model: nn.Module, loss: nn.Module, path: Path, rename: Sequence[str]) -> None:
    """Load the tensors that fit by name and shape, and print the others. Raises `UserError`.

    path: a checkpoint of a run (its averaged weights if it has them), a state dict, a file that
    holds one, or a .safetensors file. rename: regular expressions "pattern=>replacement" for the
    file's keys. The parameters of the loss are called "loss.<name>".
    """
    found = read_weights(path)
    for rule in rename:
        pattern, replacement = rule.split("=>", 1)
        try:
            renamed = {key: re.sub(pattern, replacement, key) for key in found}
        except re.error as error:
            raise UserError(f"init_rename: '{rule}' does not work: {error}.") from None
        found = _renamed(found, renamed, f"init_rename: '{rule}' gives", path)
    own: dict[str, Any] = {f"loss.{name}": p for name, p in loss.named_parameters()}
    own |= {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}
    renamed = {key: _without_prefix(key, own) for key in found}
    found = _renamed(found, renamed, "Without prefixes, init_from gives", path)
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
    bad = [k for k, v in fitting.items() if not v.isfinite().all() and own[k].isfinite().all()]
    if bad:
        text = f"init_from={path}: {', '.join(bad[:_SHOWN])} is not finite (infinite or NaN)."
        raise UserError(f"{text} Choose another file, such as an earlier checkpoint.")
    model.load_state_dict(fitting, strict=False)
    with torch.no_grad():
        for name, parameter in loss.named_parameters():
            parameter.copy_(fitting.get(f"loss.{name}", parameter))
    say(f"init_from={path}: loaded {len(fitting)} of {len(own)} tensors of the model.")
    if prefixes := {key.removesuffix(short) for key, short in renamed.items()} - {""}:
        say(f"  left out of the file's keys, so that they fit: {', '.join(sorted(prefixes))}")
    for what, keys in others.items():
        if keys:
            rows = [
                k + " instead of".join(f" {tuple(s[k].shape)}" for s in (found, own) if k in s)
                for k in keys[:_SHOWN]
            ]
            more = f" … and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            say(f"  {what}: {', '.join(rows)}{more}")


def _renamed(
    found: Mapping[str, Tensor], names: Mapping[str, str], what: str, path: Path
) -> dict[str, Tensor]:
    renamed = {names[key]: value for key, value in found.items()}
    if len(renamed) < len(found):
        raise UserError(f"{what} two keys of {path} the same name.")
    return renamed


def _without_prefix(key: str, own: Mapping[str, Any]) -> str:
    """Return `key` without as many prefixes as it takes to be a key of the model, if any do."""
    short = key
    while short not in own and (match := _PREFIX.match(short)):
        short = short[match.end() :]
    return short if short in own else key


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file, on the CPU. Runs no code from it. Raises `UserError`.

    The parameters of a checkpoint's loss are called "loss.<name>".
    """
    if path.is_dir():
        raise UserError(f"init_from={path} is a folder. Name a file in it: checkpoints/best.pt.")
    if not path.is_file():
        raise UserError(f"init_from={path}: the file {path.absolute()} does not exist.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise errors of many types
        if isinstance(error, pickle.UnpicklingError) and "Unsupported" in str(error):
            raise UserError(
                f"init_from={path}: this file could run code, because it holds other things than "
                'tensors. If you trust it, save its state dict alone: python -c "import torch; c = '
                f"torch.load('{path}', 'cpu', weights_only=False); torch.save(c['state_dict'], "
                "'weights.pt')\". For a whole model, write c.state_dict() in place of c['state_dict']."
            ) from error
        raise UserError(f"init_from={path} cannot be read: {one_line(error)[:150]}.") from error
    if isinstance(state, dict) and state.get("format") == checkpoint.FORMAT and "model" in state:
        loss = {f"loss.{key}": value for key, value in state.get("loss", {}).items()}
        state = {**loss, **(state["ema"] or state["model"])}
    elif isinstance(state, dict):
        state = next((state[k] for k in _INSIDE if isinstance(state.get(k), dict)), state)
    state = state if isinstance(state, dict) else {}
    weights = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not weights or not all(isinstance(key, str) for key in state):
        raise UserError(f"init_from={path} is not a state dict: a dict of tensors by name.")
    if any(value.is_meta or value.layout != torch.strided for value in weights.values()):
        raise UserError(f"init_from={path} has sparse tensors, or tensors without values.")
    return weights
