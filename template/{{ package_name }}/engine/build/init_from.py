"""Load weights to start from (`init_from=`), and show which tensors matched."""

import os
import pickle
import re
import zipfile
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, one_line
from ..run import checkpoint
from ..run.facts import CHECKPOINT, misfit
from ..run.names import is_checkpoint
from ..text import say

Weights = dict[str, Tensor]

_SHOWN = 8
_INSIDE = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
"""Where other programs' files keep the state dict; averaged weights come first."""
_PROGRAMS = {  # a file that only archives of such programs have, and their weights
    "/constants.pkl": "torch.jit.load('{}').state_dict()",
    "/archive_format": "torch.export.load('{}').state_dict",
}
_SAVE = "Save its weights: python -c \"import torch; torch.save({}, 'weights.pt')\""
_PREFIX = re.compile(r"(module|_orig_mod|model|net|backbone)\.")  # of other programs' wrappers


def init_from(model: nn.Module, loss: nn.Module, path: Path, rename: Sequence[str]) -> None:
    """Load the tensors that fit by name and shape, and print the others. Raises `UserError`.

    path: a checkpoint of a run, a state dict, a file that holds one, or a .safetensors file. Averaged
    weights come before others. rename: regular expressions "pattern=>replacement" for the file's keys.
    The parameters of the loss are called "loss.<name>".
    """
    found = read_weights(path)
    for rule in rename:
        try:
            found = _renamed(found, partial(re.sub, *rule.split("=>", 1)), f"init_rename: '{rule}'")
        except re.error as error:
            raise UserError(f"init_rename: '{rule}' does not work: {error}.") from None
    own: dict[str, Any] = {f"loss.{name}": p for name, p in loss.named_parameters()}
    own |= {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}
    prefixes = {key.removesuffix(_without_prefix(key, own)) for key in found} - {""}
    found = _renamed(found, partial(_without_prefix, own=own), "Without prefixes, init_from")
    fitting = {k: v for k, v in found.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise UserError(
            f"No tensor in {path} fits the model. Its first key is '{next(iter(found), '')}', the "
            f"model's '{next(iter(own), '')}'. Rename keys with \"init_rename=['^prefix[.]=>']\"."
        )
    for key, value in fitting.items():
        if not value.to(own[key].dtype).isfinite().all() and own[key].isfinite().all():
            raise UserError(f"{key} in {path} is infinite or NaN. Choose an earlier checkpoint.")
    model.load_state_dict(fitting, strict=False)
    with torch.no_grad():
        for name, parameter in loss.named_parameters():
            parameter.copy_(fitting.get(f"loss.{name}", parameter))
    say(f"init_from={path}: loaded {len(fitting)} of {len(own)} tensors of the model.")
    other = [k for k in found if k in own and k not in fitting]
    others = {
        "left out of the file's keys, so that they fit": sorted(prefixes),
        "missing in the file, left as initialised": [k for k in own if k not in found],
        "in the file only, not used": [k for k in found if k not in own],
        "other shape, left as initialised": [
            f"{k} {tuple(found[k].shape)} instead of {tuple(own[k].shape)}" for k in other
        ],
    }
    for what, keys in others.items():
        if keys:
            more = f" … and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            say(f"  {what}: {', '.join(keys[:_SHOWN])}{more}")


def _renamed(found: Weights, rename: Callable[[str], str], what: str) -> Weights:
    renamed = {rename(key): value for key, value in found.items()}
    if len(renamed) < len(found):
        raise UserError(f"{what} gives two keys of the file the same name.")
    return renamed


def _without_prefix(key: str, own: Collection[str]) -> str:
    """Return `key` without as many prefixes as it takes to be a key of the model, if any do."""
    short = key
    while short not in own and (match := _PREFIX.match(short)):
        short = short[match.end() :]
    return short if short in own else key


def read_weights(path: Path) -> Weights:
    """Return the state dict in a file, on the CPU. Runs no code from it. Raises `UserError`."""
    if not is_checkpoint(path):
        what = "is a folder" if os.path.isdir(path) else "does not exist"
        raise UserError(f"init_from={path.absolute()} {what}. Name a file: checkpoints/best.pt.")
    program = ""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.is_dir():
            state: Any = checkpoint.load(path)
        else:
            if zipfile.is_zipfile(path):
                files = zipfile.ZipFile(path).namelist()
                program = next((p for p in _PROGRAMS if any(f.endswith(p) for f in files)), "")
                if not program:
                    checkpoint.check_bytes(path)
            state = program or torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise errors of many types
        if isinstance(error, pickle.UnpicklingError) and "Unsupported" in str(error):
            raise UserError(
                f"init_from={path}: this file could run code. If you trust it, save its state dict: "
                f"python -c \"import torch; c = torch.load('{path}', 'cpu', weights_only=False); "
                "torch.save(c['state_dict'], 'weights.pt')\". Of a whole model, save c.state_dict()."
            ) from error
        raise UserError(f"init_from={path} cannot be read: {one_line(error)[:150]}.") from error
    if program:
        advice = _SAVE.format(_PROGRAMS[program].format(path))
        raise UserError(f"init_from={path} is a program, not a state dict. {advice}")
    if not isinstance(state, dict):
        state = {}
    elif str(state.get("format")) == str(checkpoint.FORMAT) and "model" in state:
        state = {"ema": None, "loss": {}, **state}
        if misfit(state, {key: CHECKPOINT[key] for key in ("model", "ema", "loss")}) is not None:
            raise UserError(f"init_from={path} holds no tensors by name. Choose another file.")
        loss = {f"loss.{key}": value for key, value in state["loss"].items()}
        state = {**loss, **(state["ema"] or state["model"])}
    else:
        inside = [key for key in _INSIDE if isinstance(state.get(key), dict)]
        if not inside and not any(value.ndim for value in _tensors(state).values()):
            inside = [key for key, value in state.items() if _tensors(value)]
            if len(inside) > 1:
                advice = _SAVE.format(f"torch.load('{path}')['{inside[0]}']")
                names = ", ".join(map(str, inside))
                raise UserError(f"init_from={path} holds several state dicts: {names}. {advice}")
        state = state[inside[0]] if inside else state
    weights = _tensors(state)
    if not weights or not all(isinstance(key, str) for key in state):
        raise UserError(f"init_from={path} is not a state dict: a dict of tensors by name.")
    if any(v.is_meta or v.is_quantized or v.layout != torch.strided for v in weights.values()):
        raise UserError(f"init_from={path} has sparse, quantized or meta tensors. Save dense ones.")
    return weights


def _tensors(state: Any) -> Weights:
    """Return the tensors by name in a dict, or {} of anything else."""
    items = state.items() if isinstance(state, dict) else ()
    return {key: value for key, value in items if isinstance(value, Tensor)}
