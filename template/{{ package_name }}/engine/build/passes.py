"""Trial passes of single batches through copies of model and task, before a new run.

A resumed run has what its checkpoint holds, and everything else as it was built. A copy made here
after a step is alike. If its next step differs, the run has state that no checkpoint holds.
"""

import contextlib
import copy
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from .. import rng
from ..api import Context, Share, check_scalar, count_share, recording
from ..config.schema import Config
from ..errors import DeviceError, Exit, UserError, of_device
from ..machine.device import autocast, map_tensors, shapes, to_device
from ..machine.distributed import RANK, WORLD_SIZE, from_all
from ..machine.sharding import is_sharded, local
from ..means import value_and_n
from ..rng import Domain
from ..text import logger
from .averaged import computed
from .differences import difference
from .kept import evaluating
from .optimizer import check_trained
from .parts import Built, Parts
from .target import PACKAGE, describe_error

_SMALL = 1 << 28
"""Bytes of weights that may be copied. A large model is not."""

_DRAW = "Draw from `random`, `numpy.random` or `torch` themselves: they have the key of each draw."
_KEEP = "Keep state in a buffer of the model, or give its owner `state_dict` and `load_state_dict`."


def copied(parts: Parts) -> Parts:
    """Return `parts` with copies of model, loss, task and metrics, which share their weights."""
    tops = parts.model, parts.loss
    shared = [t for top in tops for t in (*top.parameters(), *computed(top))]
    own = {name: getattr(parts, name) for name in ("model", "loss", "task", "metrics")}
    if is_sharded(parts.config):
        shared += [parts.model, parts.loss]
    try:
        return replace(parts, **copy.deepcopy(own, {id(thing): thing for thing in shared}))
    except Exception as error:  # such as a model with an open file
        logger.warning(
            "Model, loss, task and metrics cannot be copied, so hidden state is not looked for. "
            f"{describe_error(error)}"
        )
        return parts


def one_pass(
    parts: Parts, batch: Any, what: str, step: int = 0, training: bool = True
) -> dict[str, Any]:
    """Send a micro-batch forward, and in training also backward. Return the values by key.

    what: the batch in words, for messages. step: whose random draws it takes. Raises `UserError`.
    """
    config, device, task = parts.config, parts.device, parts.task
    batch = to_device(map_tensors(Tensor.clone, batch), device, config.channels_last)
    ctx = Context(0, 1, training, device, {} if training else parts.metrics)
    number = step * parts.train.plan.micro_batches + RANK
    domain = Domain.STEP if training else Domain.VALIDATION
    parts.model.train(training)
    with (
        contextlib.nullcontext() if training else evaluating(parts, parts.model),
        weights_kept(parts) as changed,
        _buffers_kept(parts, training),
        goes_through(parts, batch, what),
        torch.set_grad_enabled(training),
    ):
        if training and parts.mix is not None:
            rng.seed_all(rng.make_key(config.seed, Domain.BATCH, RANK))
            batch = to_device(parts.mix(*batch), device, config.channels_last)
        rng.seed_all(rng.make_key(config.seed, domain, number))
        with autocast(parts.precision, device), recording() as recorded:
            compute = task.training_step if training else task.validation_step
            values = compute(parts.model, batch, ctx)
        if not hasattr(values, "items") or "loss" not in values:
            raise UserError("The task's step must return a dict with the key 'loss'.")
        numbers = {}
        for key, value in {**{k: v[0] for k, v in recorded.items()}, **values}.items():
            if isinstance(value, Share) and key != "loss":
                count_share(key, value)
                value = value.value()
            value, _ = value_and_n(value)
            check_scalar(key, value)
            numbers[key] = value.item()
        derived = task.derived(numbers)
        if training:
            value_and_n(values["loss"])[0].backward()
        else:
            parts.moving[:] = changed()
        named = parts.model.named_parameters()
        unused = [name for name, p in named if p.requires_grad and p.grad is None]
    parts.model.train()
    several = WORLD_SIZE > 1 or config.virtual_ranks is not None
    is_shared = training and several and not parts.in_turn
    if is_shared and (names := sorted({*chain.from_iterable(from_all(unused))})):
        raise UserError(
            f"The {what} does not use {', '.join(names[:3])}{' …' if names[3:] else ''}. On several "
            "processes each step must use all parameters. Remove or freeze them (requires_grad)."
        )
    return {**numbers, **derived, "loss": values["loss"]}


@contextlib.contextmanager
def _buffers_kept(parts: Parts, training: bool) -> Iterator[None]:
    """Refuse a pass that changes buffers where each process or part of a step would have its own."""
    config, key, owners = parts.config, "parallel", {"": parts.model}
    if training and config.virtual_ranks is not None:
        key, owners = "virtual_ranks", {"": parts.model, "loss": parts.loss}
    elif not is_sharded(config):
        yield
        return

    def buffers() -> dict[str, Tensor]:
        return {n: b for prefix, m in owners.items() for n, b in m.named_buffers(prefix)}

    before = {name: buffer.clone() for name, buffer in buffers().items()}
    yield
    moved = [n for n, b in buffers().items() if n not in before or not torch.equal(before[n], b)]
    sparse = [name for name, m in parts.model.named_modules() if getattr(m, "sparse", 0) is True]
    told = f"{key}={getattr(config, key)} does not work with this model."
    if moved:
        raise UserError(
            f"{told} Each micro-batch changes {', '.join(moved[:2])}{' …' if moved[2:] else ''}. "
            f"Use GroupNorm or LayerNorm, or leave {key} out."
        )
    if sparse and key == "virtual_ranks":
        raise UserError(f"{told} {sparse[0]} has sparse gradients. Set sparse=False there.")


@contextlib.contextmanager
def weights_kept(parts: Parts) -> Iterator[Callable[[], list[str]]]:
    """Drop the gradients of the block, and put back weights that it changes, unless they are many.

    Yields a function that returns the names of the changed weights.
    """
    weights = {**dict(parts.model.named_parameters()), **dict(parts.loss.named_parameters("loss"))}
    is_small = sum(weight.nbytes for weight in weights.values()) < _SMALL
    kept = {n: weight.detach().clone() for n, weight in weights.items() if is_small}

    def changed() -> list[str]:
        pairs = {n: (local(weights[n]), local(value)) for n, value in kept.items()}
        names = [n for n, (now, then) in pairs.items() if not torch.equal(now.cpu(), then.cpu())]
        if not is_sharded(parts.config):  # a process may do more passes than others
            return names
        return list(dict.fromkeys(chain.from_iterable(from_all(names))))

    try:
        yield changed
    finally:
        for weight in weights.values():
            weight.grad = None
        for name, value in kept.items():
            weights[name].data.copy_(value)


def too_large(config: Config) -> str:
    peak = torch.cuda.max_memory_allocated() / 2**30
    return (
        f"The GPU's memory is too small for batch_size={config.batch_size} with accumulate="
        f"{config.accumulate} (peak {peak:.1f} GiB). Raise accumulate, or lower batch_size."
    )


@contextlib.contextmanager
def goes_through(built: Built, batch: Any, what: str = "first batch") -> Iterator[None]:
    """Turn an error of the model or the task on a batch into `UserError`."""
    returned: deque[Any] = deque(maxlen=1)
    hook = built.model.register_forward_hook(lambda *call: returned.append(call[2]))
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(too_large(built.config)) from error
    except Exception as error:
        is_told = isinstance(error, Exit | ImportError | NameError) or of_device(error)
        if is_told or built.config.log.level == "debug":
            raise
        text = f"The model or the task failed on the {what} {shapes(batch)}: "
        text += describe_error(error)
        if returned and hasattr(returned[0], "logits"):  # as the models of transformers do
            name = type(returned[0]).__name__
            text += f" The model returns {name}. In task.py, take model(…).logits."
        if what == "smallest training batch":
            text += " Set drop_last=true to leave it out."
        raise UserError(f"{text} Add -v to see the traceback.") from error
    finally:
        hook.remove()


def check_repeats(parts: Parts, tried: Parts, batch: Any, val_batch: Any) -> None:
    """Compute an order, a sample and a step twice. Raises `UserError`; warns if deterministic=warn.

    tried: a copy of `parts` after a step. batch, val_batch: of training and of validation.
    """
    if tried is parts:  # it cannot be copied
        return
    config, plan, reader = parts.config, parts.train.plan, copy.copy(parts.train.reader)
    if plan.order is not None:
        what = "When Data.order is called again, this differs: the order of epoch 1"
        refuse_difference(config, what, plan.order(0), plan.order(0))
    reader.collate = list
    first, own_state = plan.batches(0)[0], parts.own_state()
    one = first._replace(indices=first.indices[:1])
    sample = map_tensors(Tensor.clone, reader[one])
    parts.load_own_state(own_state)
    what = f"When it is read again, this differs: training sample {one.indices[0]}"
    refuse_difference(config, what, sample, reader[one])

    resumed = copied(parts)
    if resumed.model is parts.model:  # it is divided among the processes
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
    """Refuse values that differ in any process. If deterministic=warn, warn and return True."""
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
