"""The objects that a run is made of."""

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import rng
from ..api import Data, Logger, Task
from ..batches.loader import Loader
from ..config.schema import Config, is_count_or_share
from ..errors import UserError
from ..machine.distributed import WORLD_SIZE, is_main, share_buffers, sum_over_processes
from ..machine.replicated import replicate
from ..machine.sharding import divided, is_sharded
from ..machine.torch_internals import for_each
from ..rng import Domain, Permutation
from ..run.saver import Saver
from ..schedule import Schedule
from ..text import logger
from .averaged import Averaged
from .optimizer import check_trained
from .optimizer_state import cannot_use, load_optimizer_state, optimizer_state
from .target import bind, build, describe_error, locate, own_keys
from .virtual_ranks import Tree


@dataclass
class Built:
    """What it takes to use a model, whether or not it is trained."""

    config: Config
    device: torch.device
    precision: str
    data: Data
    info: dict[str, Any]
    """What the data say of themselves, or said when the run was trained."""
    model: nn.Module
    loss: nn.Module
    task: Task
    metrics: dict[str, Any]
    moving: list[str] = field(default_factory=list, kw_only=True)
    """Names of weights that a forward pass in eval mode changes."""

    def own_state(self) -> dict[str, Any]:
        """Return copies of the state dicts of the task and the data, if they have one."""
        owners = {"task": self.task, "data": self.data}
        states = {k: o.state_dict() for k, o in owners.items() if hasattr(o, "state_dict")}
        return copy.deepcopy(states)

    def load_built(self, state: Mapping[str, Any], averaged: bool = False) -> None:
        """Load the weights and `own_state` of a checkpoint. Raises `UserError`.

        averaged: take the averaged weights if there are any.
        """
        load_weights(self.model, (averaged and state["ema"]) or state["model"], "model")
        load_weights(self.loss, state["loss"], "loss")
        self.load_own_state(state)

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Load what `own_state` returned, or a checkpoint, which may lack it."""
        owners: dict[str, Any] = {"task": self.task, "data": self.data}
        for key, owner in owners.items():
            if hasattr(owner, "state_dict") and key in state:
                try:
                    owner.load_state_dict(copy.deepcopy(state[key]))
                except Exception as error:
                    text = f"The {key} cannot load the state that it saved."
                    raise UserError(f"{text} {describe_error(error)}") from error
            elif hasattr(owner, "state_dict"):
                logger.warning(f"The checkpoint holds no state of the {key}. It stays as built.")


@dataclass
class Parts(Built):
    averaged: Averaged | None
    mix: Callable[..., Any] | None
    parameters: dict[str, nn.Parameter]
    optimizer: Optimizer
    scheduler: Schedule
    train: Loader
    val: Loader | None
    total_steps: int
    val_interval: int | Fraction  # optimizer steps between validations; 0: only at the run's end
    fingerprint: dict[str, Any]
    data_sums: str  # hashes of the data's files, with `data.fingerprint=content`
    replicated: Any = None  # the model in DistributedDataParallel, with several processes
    arrived: dict[nn.Parameter, bool] = field(default_factory=dict)  # see `replicate`
    tree: Tree | None = None  # sums gradients, with `virtual_ranks`
    modes: dict[str, bool] = field(default_factory=dict)  # those that the task has set
    usual_modes: dict[str, bool] = field(default_factory=dict)  # those after `model.train()`

    @property
    def in_turn(self) -> bool:
        """Whether a step may leave groups of parameters out."""
        return type(self.task).trains is not Task.trains

    def wrapped_model(self) -> nn.Module:
        """What a training step calls: the model, shared with other processes and compiled."""
        model = self.model
        if WORLD_SIZE > 1 and not is_sharded(self.config):
            model = self.replicated = replicate(self.model, self.device, self.in_turn, self.arrived)
        if self.config.virtual_ranks is not None:
            self.tree = Tree(self.config, self.model, self.loss, self.replicated)
        if self.config.compile != "false":
            # The compiled module shares the weights; the state dict stays that of the plain one.
            # Dynamic kernels would depend on the shapes seen so far, which a resumed run has not.
            mode = None if self.config.compile == "true" else self.config.compile
            model = torch.compile(model, dynamic=False, mode=mode)  # type: ignore[assignment]
        return model

    def begin_training(self) -> None:
        """Put the model in training mode, and modules that the task has put in another mode in theirs."""
        self.model.train()
        self.usual_modes = modes_of(self.model)
        for name, module in self.model.named_modules():
            if name in self.modes:
                module.training = self.modes[name]

    def average_gradients(self, divisor: Tensor | float | None) -> None:
        """Average the gradients of the loss's own parameters over the processes, and share its own
        buffers: the replicated model leaves both out. Divide all gradients by the sum of `divisor` over
        the processes. With virtual ranks, gradients and divisors are summed already."""
        for module in self.loss.modules() if WORLD_SIZE > 1 else ():
            if not type(module).__module__.startswith("torch."):  # torch's own do not change theirs
                share_buffers(module, recurse=False)
        if WORLD_SIZE > 1 and self.tree is None and not is_sharded(self.config):
            for parameter in self.loss.parameters():
                if parameter.grad is not None:
                    sum_over_processes(parameter.grad).div_(WORLD_SIZE)
        if divisor is not None:
            if not isinstance(divisor, Tensor):  # copying a number would wait for the GPU
                divisor = torch.full((), float(divisor), device=self.device)
            divisor = divisor.to(self.device, torch.float32, copy=True)
            share = divisor
            if WORLD_SIZE > 1 and self.tree is None:
                share = sum_over_processes(divisor) / WORLD_SIZE
            share.clamp_(min=1e-30)  # without any thing the gradients are 0 and stay 0
            grads = [q.grad for q in self.parameters.values() if q.grad is not None]
            for_each("div_", grads, share)

    @property
    def validation_reader(self) -> str | None:
        """What in the training depends on validations, in words; None if nothing does."""
        if self.config.early_stopping_patience is not None:
            return "early stopping"
        if type(self.task).after_validation is not Task.after_validation:
            return "the task"
        return None if type(self.scheduler).observe is Schedule.observe else "the schedule"

    @property
    def save_intervals(self) -> tuple[int, ...]:
        """Optimizer steps between checkpoints, by epochs and by steps. 0 stands for never."""
        by_epochs = self.config.save_every_epochs * self.train.plan.steps
        return by_epochs, self.config.save_every_steps or 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the parts. Raises `UserError`."""
        check_trained(self.optimizer, self.model, self.loss)
        if usual := self.usual_modes:
            modes = modes_of(self.model).items()
            self.modes = {name: mode for name, mode in modes if mode != usual.get(name)}
        return {
            "model": self.model.state_dict(),
            "ema": None if self.averaged is None else self.averaged.model.state_dict(),
            "loss": self.loss.state_dict(),
            **optimizer_state(self.optimizer),
            "scheduler": self.scheduler.state_dict(),
            "fingerprint": self.fingerprint,
            "info": plain(self.info),
            "modes": self.modes,
            **self.own_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a checkpoint. Raises `UserError` if its tensors do not fit."""
        state = self.placed(state)
        self.load_built(state)
        if self.averaged is not None:
            load_weights(self.averaged.model, state["ema"] or state["model"], "ema")
            self.averaged.updates = state["step"]
        check_trained(self.optimizer, self.model, self.loss)
        try:
            load_optimizer_state(self.optimizer, state["optimizer"], state.get("optimizer_values"))
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise UserError(cannot_use(error)) from error
        self.scheduler.load_state_dict(state["scheduler"])
        self.modes = state.get("modes", {})

    def placed(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a checkpoint with the parts of its tensors that this process holds."""
        if not is_sharded(self.config):
            return state
        own = {**self.model.state_dict(), **self.loss.state_dict(prefix="loss.")}
        state, unread = divided(state, own, self.config, self.device)
        if unread:
            from ..run.sharded_checkpoint import read_parts  # here: it takes a second to import

            read_parts(Path(state["folder"]), unread, state["files"])
        return state

    def new_saver(self, folder: Path, masks: Collection[str]) -> Saver:
        """Return what writes checkpoints. masks: names of tensors that may be infinite."""
        kind = Saver
        if is_sharded(self.config):
            from ..run.sharded_saver import ShardedSaver as kind  # here, as above

        return kind(folder, self.config.keep_last, masks)

    def copy_gradients(self) -> None:
        for q in self.parameters.values():
            q.grad = None if q.grad is None else q.grad.clone()


def check_loggers(config: Config) -> None:
    """Refuse loggers that cannot work, before there is a run folder. Raises `UserError`."""
    offered = {"folder": None, "next_step": 0}
    for name, section in config.logger.items():
        sink, _ = bind(section, f"logger.{name}", Logger, config.allowed_packages, offered)
        if is_main() and isinstance(sink, type) and issubclass(sink, Logger):
            sink.check(section)


def build_mix(config: Config, info: Mapping[str, Any]) -> Callable[..., Any] | None:
    """Return MixUp or CutMix for training batches (images, labels), or None. Raises `UserError`."""
    if "_target_" not in config.mix:
        return None
    if "classes" not in info:
        raise UserError("mix mixes labels, but the data have no classes. Set mix=none.")
    offered = {"num_classes": info["classes"]}
    return build(config.mix, "mix", nn.Module, config.allowed_packages, offered)


def plain(value: Any) -> Any:
    """Return nested values as plain dicts, lists, tuples, numbers and texts. Entries of a dict that hold
    anything else, such as tensors, are left out."""
    if isinstance(value, Mapping):
        named = {str(key): plain(entry) for key, entry in value.items()}
        return {key: entry for key, entry in named.items() if entry is not NotImplemented}
    if isinstance(value, list | tuple):
        entries = list(map(plain, value))
        whole = all(entry is not NotImplemented for entry in entries)
        return (entries if isinstance(value, list) else tuple(entries)) if whole else NotImplemented
    value = value.item() if isinstance(value, np.generic) else value
    return value if type(value) in (bool, int, float, str, type(None)) else NotImplemented


def modes_of(model: nn.Module) -> dict[str, bool]:
    """Return for each module whether it is in training mode. A frozen program has no mode."""
    return {n: m.training for n, m in model.named_modules() if hasattr(m, "training")}


def lazy_modules(built: Built) -> list[str]:
    """Return the names of modules that wait for a batch to learn their shapes."""
    named = (*built.model.named_modules(), *built.loss.named_modules(prefix="loss"))
    tensors = ((n, t) for n, m in named for t in (*m.parameters(False), *m.buffers(False)))
    return [name for name, tensor in tensors if nn.parameter.is_lazy(tensor)]


def load_weights(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load a state dict that must fit exactly. Raises `UserError` with a table of the differences."""
    own, rows = module.state_dict(), []
    for key in [key for key in own if nn.parameter.is_lazy(own[key])]:
        own[key] = state.get(key, torch.empty(0))  # it takes the shape of the stored tensor
    for key in sorted({*own, *state}):
        stored, wanted = (tuple(t[key].shape) if key in t else "missing" for t in (state, own))
        if stored != wanted:
            rows.append(f"  {key}: {stored} in the checkpoint, {wanted} in the {name}")
    if rows:
        table = "\n".join(rows)
        raise UserError(f"The checkpoint's {name} weights do not fit the {name}:\n{table}")
    module.load_state_dict(dict(state))


def fixed_subset(config: Config, data: Data, size: int) -> np.ndarray | None:
    """Return the samples to train on, int64, ascending. None: all `size`. Raises `UserError`.

    They do not depend on the run's seed, and a smaller subset is part of each larger one. If the
    data's `_target_` takes an argument `subset`, the argument means what the target makes of it.
    """
    wanted = config.data.get("subset")
    target = locate(config.data["_target_"], "data._target_", config.allowed_packages)
    if wanted is None or "subset" not in own_keys(target, "data"):
        return None
    if not is_count_or_share(wanted) or wanted > size:
        raise UserError(
            f"data.subset={wanted} is not possible. It must be a number of samples, from 1 to {size}, "
            "or a share above 0.0 and up to 1.0."
        )
    if data.order(1, 0) is not None:
        raise UserError("data.subset and the data's own order(…) exclude each other. Remove one.")
    count = max(1, round(wanted * size)) if isinstance(wanted, float) else wanted
    return np.sort(Permutation(size, rng.make_key(0, Domain.INIT, 5)).slice(0, count))
