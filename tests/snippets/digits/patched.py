"""Raise an error of the GPU, as torch does where there is one: RAISE at the CALL-th call of AT, in the rank ONLY.

Without RAISE, the memory of the stand-in for a GPU is full from this call on.
"""

import ctypes
import functools
import importlib
import os

import torch

owner_name, _, name = os.environ.get("AT", "").rpartition(".")
calls = [0]


def patched(inner):
    @functools.wraps(inner)
    def function(*args, **kwargs):
        calls[0] += 1
        if calls[0] == int(os.environ.get("CALL", "1")):
            if (text := os.environ.get("RAISE")) is None:
                torch.cuda.empty_cache()
                ctypes.CDLL(os.environ["LD_PRELOAD"]).stand_in_fill()
                return inner(*args, **kwargs)
            raise torch.OutOfMemoryError(text) if text.startswith("CUDA out") else RuntimeError(text)
        return inner(*args, **kwargs)

    return function


if name and os.environ.get("ONLY", os.environ.get("RANK")) == os.environ.get("RANK"):
    module, _, kind = owner_name.partition(":")
    owner = importlib.import_module(module)
    owner = getattr(owner, kind) if kind else owner
    setattr(owner, name, patched(getattr(owner, name)))
