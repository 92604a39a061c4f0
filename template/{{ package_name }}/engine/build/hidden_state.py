"""Look for state that no checkpoint holds, before a new run.

A resumed run has what its checkpoint holds, and everything else as it was built. So does a copy of
model and task here, after a step: if its next step is another one, the run could not be resumed.
"""

import copy
import pickle
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import rng
from ..config.schema import Config
from ..errors import UserError
from ..machine.device import map_tensors
from ..rng import Domain
from ..text import logger
from .parts import Built, Parts
from .passes import copied, training_pass, validation_pass, weights_kept
from .target import PACKAGE

DRAW = "Draw from `random`, `numpy.random` or `torch` themselves: they have the key of each draw."
KEEP = "Keep it in a buffer of the model, or give its owner `state_dict` and `load_state_dict`."

_PLAIN = bool | int | float | complex | str | bytes | set | None
_GENERATORS = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


def check_repeats(parts: Parts, tried: Parts, batch: Any, val_batch: Any) -> None:
    """Compute an order, a sample and a step twice. Raises `UserError`; warns if deterministic=warn.

    tried: a copy of `parts` after a step. batch, val_batch: of training and of validation.
    """
    plan, reader = parts.train.plan, copy.copy(parts.train.reader)
    if plan.order is not None and (how := difference(plan.order(0), plan.order(0))):
        refuse(
            parts.config, f"Data.order gives epoch 1 another order when called again{how}. {DRAW}"
        )
    reader.collate = list
    first, own_state = plan.batches(0)[0], parts.own_state()
    one = first._replace(indices=first.indices[:1])
    sample = map_tensors(Tensor.clone, reader[one])
    parts.load_own_state(own_state)
    if how := difference(sample, reader[one]):
        name = f"Training sample {one.indices[0]}"
        refuse(parts.config, f"{name} is another one when it is read again{how}. {DRAW} {KEEP}")
    resumed = copied(parts)
    if resumed.model is not parts.model:  # else it cannot be copied
        _check_resume(parts, tried, resumed, batch, val_batch)


def _check_resume(parts: Parts, tried: Parts, resumed: Parts, batch: Any, val_batch: Any) -> None:
    """Do the next step of `tried`, and of `resumed` with what a checkpoint holds of `tried`."""
    for one, other in ((tried.model, resumed.model), (tried.loss, resumed.loss)):
        state = one.state_dict(keep_vars=True).items()  # weights are shared
        held = {k: v for k, v in state if not isinstance(v, nn.Parameter)}
        other.load_state_dict(held, strict=False)
    resumed.load_own_state(tried.own_state())
    lost, losses = list(_lost(tried, resumed)), []
    key = rng.make_key(parts.config.seed, Domain.STEP, 1)
    for built in (tried, resumed):
        with weights_kept(parts):
            loss = training_pass(built, batch, "first training batch", key, backward=False)
            losses.append([loss, validation_pass(built, val_batch, "first batch")])
    names = ", ".join(text for text, _ in lost[:3]) or "all of its state"
    if how := difference(*losses):
        how = how.replace("[0]", "training loss").replace("[1]", "validation loss")
        refuse(
            parts.config,
            f"A resumed run would differ ({how}): no checkpoint holds {names}. {KEEP} {DRAW}",
        )
    elif own := [text for text, is_own in lost if is_own]:
        logger.warning(f"A step changes {', '.join(own[:3])}. No checkpoint holds it. {KEEP}")


def refuse(config: Config, sentence: str) -> None:
    """Raise `UserError` if a run must repeat exactly; otherwise warn."""
    if config.deterministic == "true":
        raise UserError(f"{sentence} With deterministic=warn, this is a warning.")
    logger.warning(sentence)


def _lost(tried: Built, resumed: Built) -> Iterator[tuple[str, bool]]:
    """Yield what differs, and whether it was set before, on an object of the project's classes."""
    pairs: list[tuple[str, Any, Any]] = [("task", tried.task, resumed.task)]
    for name in ("model", "loss"):
        modules = getattr(tried, name).named_modules(prefix=name), getattr(resumed, name).modules()
        pairs += [(path, one, other) for (path, one), other in zip(*modules, strict=False)]
    for name, one, other in pairs:
        is_own = type(one).__module__.split(".")[0] == PACKAGE
        before, after = _attributes(other), _attributes(one)
        for key in after:
            if how := difference(before.get(key), after[key]):
                yield f"{name}.{key}{how}", is_own and before.get(key) is not None


def _attributes(owner: Any) -> dict[str, Any]:
    """Return the attributes and buffers of an object, without what makes it a module."""
    if not isinstance(owner, nn.Module):
        return vars(owner)
    own = {key: value for key, value in vars(owner).items() if key not in vars(nn.Module())}
    return own | dict(owner.named_buffers(recurse=False))


def difference(before: Any, after: Any) -> str:
    """Say where and how two values differ first, such as ".fc[0, 3]: 0.1 → 0.2". Empty: nowhere.

    Objects other than tensors, generators, plain values and containers of them count as equal.
    """
    if before is after:
        return ""
    if isinstance(before, nn.Module) and isinstance(after, nn.Module):
        before, after = before.state_dict(), after.state_dict()
    if isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
        if before.shape == after.shape and before.tobytes() == after.tobytes():
            return ""
        before, after = before.tolist(), after.tolist()
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        return _of_tensors(before.detach().cpu(), after.detach().cpu())
    if type(before) is not type(after):
        return f": {_shown(before)} → {_shown(after)}"
    if isinstance(before, _GENERATORS):
        return "" if pickle.dumps(before) == pickle.dumps(after) else ": another state"
    if isinstance(before, _PLAIN):
        is_equal = before == after or (before != before and after != after)  # NaN is NaN
        return "" if is_equal else f": {_shown(before)} → {_shown(after)}"
    if isinstance(before, Mapping):
        pairs = [(f".{key}", before.get(key), after.get(key)) for key in {**before, **after}]
    elif isinstance(before, list | tuple) and len(before) == len(after):
        pairs = [(f"[{n}]", a, b) for n, (a, b) in enumerate(zip(before, after, strict=True))]
    elif isinstance(before, list | tuple):
        return f": {len(before)} → {len(after)} entries"
    else:
        return ""
    return next((place + how for place, a, b in pairs if (how := difference(a, b))), "")


def _of_tensors(before: Tensor, after: Tensor) -> str:
    if before.shape != after.shape or before.dtype != after.dtype:
        return ": " + " → ".join(f"{t.dtype} {list(t.shape)}" for t in (before, after))
    differs = (before != after) & ~((before != before) & (after != after))
    if not differs.any():
        return ""
    place = differs.nonzero()[0].tolist()
    return f"{place or ''}: " + " → ".join(str(t[tuple(place)].item()) for t in (before, after))


def _shown(value: Any) -> str:
    return repr(value)[:40] if isinstance(value, _PLAIN) else type(value).__name__
