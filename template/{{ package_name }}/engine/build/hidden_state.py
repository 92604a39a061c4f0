"""Look for state that no checkpoint holds, before a new run.

A resumed run has what its checkpoint holds, and everything else as it was built. So does a copy of
model and task here, after a step: if its next step is another one, the run could not be resumed.
"""

import copy
import pickle
import random
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..config.schema import Config
from ..errors import UserError
from ..machine.device import map_tensors
from ..machine.distributed import from_all
from ..text import logger
from .optimizer import check_trained
from .parts import Built, Parts
from .passes import copied, one_pass
from .target import PACKAGE

_DRAW = "Draw from `random`, `numpy.random` or `torch` themselves: they have the key of each draw."
_KEEP = "Keep state in a buffer of the model, or give its owner `state_dict` and `load_state_dict`."

_PLAIN = bool | int | float | complex | str | bytes | None
_GENERATORS = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


def check_repeats(parts: Parts, tried: Parts, batch: Any, val_batch: Any) -> None:
    """Compute an order, a sample and a step twice. Raises `UserError`; warns if deterministic=warn.

    tried: a copy of `parts` after a step. batch, val_batch: of training and of validation.
    """
    config, plan, reader = parts.config, parts.train.plan, copy.copy(parts.train.reader)
    if plan.order is not None:
        what = "Data.order gives epoch 1 another order when called again"
        refuse_difference(config, what, plan.order(0), plan.order(0))
    reader.collate = list
    first, own_state = plan.batches(0)[0], parts.own_state()
    one = first._replace(indices=first.indices[:1])
    sample = map_tensors(Tensor.clone, reader[one])
    parts.load_own_state(own_state)
    what = f"Training sample {one.indices[0]} is another one when it is read again"
    refuse_difference(config, what, sample, reader[one])

    resumed = copied(parts)
    if resumed.model is parts.model:  # it cannot be copied
        return
    weights = {"model": tried.model.state_dict(), "loss": tried.loss.state_dict()}
    resumed.load_built({**weights, **tried.own_state()})
    check_trained(parts.optimizer, resumed.model, resumed.loss)
    before, after = _attributes(resumed), _attributes(tried)
    lost = {k: k + how for k, v in after.items() if (how := difference(before.get(k), v))}
    losses = []
    for built in (tried, resumed):
        training = one_pass(built, batch, "first training batch", step=1)
        validation = one_pass(built, val_batch, "first batch", training=False)
        losses.append({"train": training["loss"], "val": validation["loss"]})
    what = f"No checkpoint holds {', '.join([*lost.values()][:3]) or 'all that a step changes'}."
    if refuse_difference(config, f"{what} A resumed run would differ in loss", *losses):
        return
    if changed := [how for key, how in lost.items() if before.get(key) is not None]:
        logger.warning(f"A step changes {', '.join(changed[:3])}. No checkpoint holds it. {_KEEP}")


def refuse_difference(config: Config, what: str, before: Any, after: Any) -> bool:
    """Refuse two values that differ in a process. `what` is said before their first difference.

    Raises `UserError`. With deterministic=warn, it warns and returns whether they differ.
    """
    for how in filter(None, from_all(difference(before, after))):
        sentence = f"{what}{how}. {_DRAW} {_KEEP}"
        if config.deterministic == "true":
            raise UserError(f"{sentence} With deterministic=warn, this is a warning.")
        logger.warning(sentence)
        return True
    return False


def _attributes(built: Built) -> dict[str, Any]:
    """Return the attributes and buffers of objects of the project's classes, by their names."""
    owners = dict(built.model.named_modules(prefix="model"))
    owners |= {"task": built.task, **dict(built.loss.named_modules(prefix="loss"))}
    found: dict[str, Any] = {}
    for name, owner in owners.items():
        if type(owner).__module__.split(".")[0] == PACKAGE:
            held = {**vars(owner), **vars(owner).get("_buffers", {})}
            own = held.keys() - vars(nn.Module())
            found |= {f"{name}.{key}": held[key] for key in held if key in own}
    return found


def difference(before: Any, after: Any) -> str:
    """Say where and how two values differ first, such as ".fc[0, 3]: 0.1 → 0.2". Empty: nowhere.

    Objects other than tensors, generators, plain values and containers of them count as equal.
    """
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
    if isinstance(before, str) and before == after:
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
        return (value.double() if value.is_floating_point() else value).numpy()
    if isinstance(value, _GENERATORS):
        return f"state {zlib.crc32(pickle.dumps(value))}"
    if isinstance(value, np.ndarray):
        return value
    return repr(value) if isinstance(value, _PLAIN) else type(value).__name__
