"""Evaluate without a trace: put back modes, buffers and state afterwards."""

import contextlib
import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..machine.device import each
from .parts import Built


def modules_beside(built: Built) -> list[nn.Module]:
    """Return the modules that a step may use beside the model: the loss, and what the task holds, such
    as a teacher."""
    task = built.task
    held = [built.loss, task, vars(task), *map(vars, type(task).__mro__)]
    return list(dict.fromkeys(each(held, nn.Module)))


@contextlib.contextmanager
def evaluating(built: Built, model: nn.Module) -> Iterator[Callable[[], None]]:
    """Put `model` and the modules beside it in eval mode. Yield a function that puts them back in their own
    modes, as the end of the block does."""
    # A frozen program of TorchScript has no mode.
    tops = [m for m in (model, *modules_beside(built)) if hasattr(m, "training")]
    modes = {m: m.training for top in tops for m in top.modules() if hasattr(m, "training")}

    def put_back() -> None:
        for top in tops:
            top.train(modes[top])
        for module, mode in modes.items():
            module.training = mode

    try:
        for top in tops:
            top.eval()
        yield put_back
    finally:
        put_back()


def keep_state(built: Built, model: nn.Module) -> Callable[..., None]:
    """Return a function that puts back what an evaluation of `model` may change: buffers, extra state,
    `built.moving` weights, and the own state of the task and the data, unless `own=False`."""
    modules = [m for top in (model, *modules_beside(built)) for m in top.modules()]
    buffers = [(m, n, b) for m in modules for n, b in m.named_buffers(recurse=False)]
    values = [b.clone() if _is_writable(b) else None for _, _, b in buffers]
    weights = {**dict(model.named_parameters()), **dict(built.loss.named_parameters("loss"))}
    moving = {weights[name]: weights[name].detach().clone() for name in built.moving}
    has_extra = [m for m in modules if type(m).get_extra_state is not nn.Module.get_extra_state]
    has_extra = [m for m in has_extra if not isinstance(m, torch.jit.ScriptModule)]
    extra = [copy.deepcopy(m.get_extra_state()) for m in has_extra]
    own_state = built.own_state()

    @torch.no_grad()
    def put_back(own: bool = True) -> None:
        for (module, name, buffer), value in zip(buffers, values, strict=True):
            setattr(module, name, buffer if value is None else buffer.copy_(value))
        for weight, value in moving.items():
            weight.data.copy_(value)
        for module, state in zip(has_extra, extra, strict=True):
            module.set_extra_state(state)
        if own:
            built.load_own_state(own_state)

    return put_back


def _is_writable(buffer: Tensor) -> bool:
    """Whether a step can change the tensor in place. Elements of an expanded one share memory."""
    if buffer.is_inference() or buffer.layout is not torch.strided:
        return False
    return all(stride or n < 2 for stride, n in zip(buffer.stride(), buffer.shape, strict=True))
