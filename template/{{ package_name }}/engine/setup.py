"""From a checked config to data, model, loss, task, optimizer and scheduler."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.data import Dataset

from . import rng, runs
from .api import Context, Data, Logger, Mean, Share, Task, recording
from .build import bind, build, told
from .config import Config
from .data import Loader, on_device
from .device import (
    autocast,
    choose_device,
    choose_precision,
    describe,
    libraries,
    set_flags,
    to_device,
)
from .distributed import WORLD_SIZE, is_main, main_first, sum_over_processes
from .errors import UserError
from .fused import leave_compiler_out, shorten
from .init_from import init_from
from .optim import Averaged, build_optimizer, named_parameters
from .plan import Plan, check_size, own_order
from .rng import Domain
from .schedule import Horizon, Schedule, build_schedule


@dataclass
class Built:
    """What it takes to use a model, whether or not it is trained."""

    config: Config
    device: torch.device
    precision: str
    data: Data
    model: nn.Module
    loss: nn.Module
    task: Task
    metrics: dict[str, Any]


@dataclass
class Parts(Built):
    """Everything that takes part in a run."""

    averaged: Averaged | None
    mix: Callable[..., Any] | None
    parameters: dict[str, nn.Parameter]
    optimizer: Optimizer
    scheduler: Schedule
    train: Loader
    val: Loader | None
    total_steps: int
    fingerprint: dict[str, Any]

    replicated: Any = None
    """The model in DistributedDataParallel, where there are several processes."""

    @property
    def in_turn(self) -> bool:
        """Whether a step may leave groups of parameters out."""
        return type(self.task).trains is not Task.trains

    def zero_grad(self) -> None:
        """Forget the gradients; what `optimizer.zero_grad()` does, without its bookkeeping, which
        takes longer than a small layer's gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def wrapped_model(self) -> nn.Module:
        """What a training step calls: the model, shared with other processes and compiled."""
        forward = self.model
        if WORLD_SIZE > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            forward = self.replicated = DistributedDataParallel(
                forward,
                device_ids=devices,
                # Networks trained in turn leave one another without gradients.
                find_unused_parameters=self.in_turn,
            )
        if self.config.compile != "false":
            # The compiled module shares the weights; the state dict stays that of the plain one.
            # Dynamic kernels would depend on the shapes seen so far, which a resumed run has not.
            mode = None if self.config.compile == "true" else self.config.compile
            forward = torch.compile(forward, dynamic=False, mode=mode)  # type: ignore[assignment]
        return forward

    def average_loss_gradients(self) -> None:
        """Between processes, for the parameters of the loss, which the replicated model lacks."""
        for parameter in self.loss.parameters():
            if parameter.grad is not None:
                sum_over_processes(parameter.grad).div_(WORLD_SIZE)

    def open_loggers(self, folder: Path, next_step: int) -> list[Logger]:
        offered = {"folder": folder, "next_step": next_step}
        allowed = self.config.allowed_packages
        return [
            build(section, f"logger.{name}", Logger, allowed, offered)
            for name, section in self.config.logger.items()
        ]


def build_model(config: Config) -> Built:
    """Build data, model, loss and task on the config's device. Raises `UserError`."""
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    set_flags(config, precision)
    allowed = config.allowed_packages

    def seed(part: int) -> None:  # each part draws from its own key, whatever the others draw
        rng.seed_all(rng.make_key(config.seed, Domain.INIT, part))

    seed(0)
    with main_first():  # it downloads what is absent
        data = build(config.data, "data", Data, allowed)
    info = dict(data.info)
    seed(1)
    model: nn.Module = build(config.model, "model", nn.Module, allowed, info)
    memory_format = torch.channels_last if config.channels_last else torch.preserve_format
    model = model.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    seed(2)
    loss: nn.Module = build(config.loss, "loss", nn.Module, allowed, info)
    loss = loss.to(device)
    seed(3)
    task: Task = build(config.task, "task", Task, allowed, {**info, "loss": loss})
    metrics = {name: metric.to(device) for name, metric in task.metrics(info).items()}
    return Built(config, device, precision, data, model, loss, task, metrics)


def split_of(built: Built, name: str) -> Dataset[Any] | None:
    """A split of the data. One that is drawn is the same whoever asks for it, and in what order."""
    rng.seed_all(rng.make_key(built.config.seed, Domain.INIT, 4))
    dataset = built.data.split(name)
    if dataset is None or not built.config.data_on_device:
        return dataset
    return on_device(dataset, built.device)  # type: ignore[no-any-return]


def held_out(built: Built, split: str, batch_size: int | None = None) -> Loader | None:
    """Reads a split in its order, every sample once; None where the data have no such split."""
    config, dataset = built.config, split_of(built, split)
    if dataset is None:
        return None
    size = len(dataset)  # type: ignore[arg-type]
    if size == 0:
        raise UserError(f"The {split} split of {config.data['_target_']} is empty.")
    plan = Plan(
        size,
        batch_size or config.batch_size,
        config.seed,
        shuffle=False,
        drop_last=False,
        accumulate=1 if batch_size else config.accumulate,
        limit=config.limit_val_batches if split == "val" else None,
    )
    return Loader(
        dataset, plan, built.data.collate, Domain.VALIDATION, config.workers, built.device
    )


def build_parts(config: Config, initialise: bool = True) -> Parts:
    """Build and check everything that trains. Raises `UserError`.

    Without `initialise` the weights come from a checkpoint, and `init_from` is not read.
    """
    built = build_model(config)
    device, data, model, loss = built.device, built.data, built.model, built.loss
    allowed, info = config.allowed_packages, dict(data.info)
    for name, section in config.logger.items():  # opened later, in the run's folder
        offered = {"folder": None, "next_step": 0}
        sink, _ = bind(section, f"logger.{name}", Logger, allowed, offered)
        if is_main() and isinstance(sink, type) and issubclass(sink, Logger):
            sink.check(section)
    train_set = split_of(built, "train")
    if train_set is None:
        raise UserError(f"{config.data['_target_']} has no train split.")
    try:
        size = len(train_set)  # type: ignore[arg-type]
    except TypeError:
        raise UserError(
            f"The train split of {config.data['_target_']} has no length: streaming data sets are "
            "left out, because their order cannot be repeated; give samples by index."
        ) from None
    order = None
    if data.order(1, 0) is not None:
        order = partial(own_order, data.order, config.seed, size)
        size = len(order(0))
    check_size(size, config.batch_size, config.accumulate, config.drop_last)
    train_plan = Plan(
        size,
        config.batch_size,
        config.seed,
        drop_last=config.drop_last,
        accumulate=config.accumulate,
        limit=config.limit_train_batches,
        order=order,
    )
    train = Loader(train_set, train_plan, data.collate, Domain.SAMPLE, config.workers, device)
    val = held_out(built, "val")
    total_steps = min(config.epochs * train_plan.steps, config.max_steps or 1 << 62)

    if config.sync_batchnorm and WORLD_SIZE > 1:
        if device.type != "cuda":
            raise UserError("sync_batchnorm=true works between GPUs only; on CPUs set it to false.")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if config.init_from is not None and initialise:
        init_from(model, Path(config.init_from), config.init_rename)
    mix = _build_mix(config, info)
    parameters = named_parameters(model, loss)
    if config.compile == "false":
        leave_compiler_out()
    optimizer = build_optimizer(config.optimizer, config.lr, model, parameters, allowed)
    shorten(optimizer)
    val_steps = config.val_every_steps or config.val_every_epochs * train_plan.steps
    horizon = Horizon(
        total_steps,
        train_plan.steps,
        config.lr,
        config.monitor_mode,
        validates=val is not None and 0 < val_steps < total_steps,
    )
    scheduler = build_schedule(config.scheduler, horizon, allowed)
    averaged = None if config.ema_decay is None else Averaged(model, config.ema_decay)
    fingerprint = runs.fingerprint(
        describe(device), libraries(device), torch.get_num_threads(), data.fingerprint()
    )
    return Parts(
        **{**vars(built), "model": model},
        averaged=averaged,
        mix=mix,
        parameters=parameters,
        optimizer=optimizer,
        scheduler=scheduler,
        train=train,
        val=val,
        total_steps=total_steps,
        fingerprint=fingerprint,
    )


def _build_mix(config: Config, info: dict[str, Any]) -> Callable[..., Any] | None:
    """MixUp or CutMix of a training batch (images, labels)."""
    if "_target_" not in config.mix:
        return None
    if "classes" not in info:
        raise UserError(
            f"mix={config.mix['_target_'].rsplit('.', 1)[-1]} mixes labels, but the data have no "
            "classes; set mix=none."
        )
    offered = {"num_classes": info["classes"]}
    mix: Callable[..., Any] = build(config.mix, "mix", nn.Module, config.allowed_packages, offered)
    return mix


@torch.no_grad()
def check_one_batch(parts: Parts) -> None:
    """One validation batch in eval mode: shapes, keys and `monitor`. Raises `UserError`."""
    loader = parts.val or parts.train
    batch = loader.first()
    parts.train.seconds = loader.seconds  # by which it chooses how many workers read
    parts.model.eval()
    ctx = Context(0, 1, training=False, device=parts.device, metrics=parts.metrics)
    rng.seed_all(rng.make_key(parts.config.seed, Domain.VALIDATION))
    batch = to_device(batch, parts.device, parts.config.channels_last)
    computed = autocast(parts.precision, parts.device)
    with goes_through(parts, batch), computed, recording() as recorded:
        values = parts.task.validation_step(parts.model, batch, ctx)
        _check_values(values)
    with goes_through(parts, batch):
        derived = parts.task.derived({k: _number(v) for k, v in {**recorded, **values}.items()})
    names = [f"val/{key}" for key in (*recorded, *values, *derived, *parts.metrics)]
    several = tuple(f"val/{key}/" for key in parts.metrics)  # of a metric that gives more than one
    monitor = parts.config.monitor
    if parts.val is not None and monitor not in names and not monitor.startswith(several):
        raise UserError(
            f"monitor={parts.config.monitor} is not among the validation values "
            f"{', '.join(names)}; set monitor to one of them."
        )


def too_large(config: Config) -> str:
    """What to say where the GPU's memory is not enough."""
    peak = torch.cuda.max_memory_allocated() / 2**30
    return (
        f"The GPU's memory is too small for batch_size={config.batch_size} with accumulate="
        f"{config.accumulate} (peak {peak:.1f} GiB): lower batch_size, or raise accumulate to keep it."
    )


@contextlib.contextmanager
def goes_through(parts: Parts, batch: Any) -> Iterator[None]:
    """Tells in one sentence what goes wrong while `batch` is computed. Raises `UserError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(too_large(parts.config)) from error
    except (
        RuntimeError,
        TypeError,
        ValueError,
        AssertionError,
        AttributeError,
        LookupError,
    ) as error:
        if parts.config.log.level == "debug":
            raise
        raise UserError(
            f"A first batch ({shapes(batch)}) does not go through the model and the task: "
            f"{told(error)} With log.level=debug you see the traceback."
        ) from error


def _number(value: Any) -> float:
    """One of the values that were given under a key."""
    value = value[0] if isinstance(value, list) else value
    if isinstance(value, Share):
        return float(value.value())
    return float(value.value if isinstance(value, Mean) else value)


def _check_values(values: Any) -> None:
    if not hasattr(values, "items") or "loss" not in values:
        raise UserError("The task's step must return a dict with the key 'loss'.")
    for key, value in values.items():
        tensor = value.value if isinstance(value, Mean) else value
        if isinstance(value, Share) and key != "loss":
            tensor = value.value()
        if not isinstance(tensor, torch.Tensor) or tensor.numel() != 1:
            shape = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor)
            raise UserError(
                f"The task's step returned '{key}' as {shape}; it must be a tensor with one value."
            )


def shapes(batch: Any) -> str:
    if isinstance(batch, torch.Tensor):
        return "×".join(map(str, batch.shape)) or "scalar"
    if isinstance(batch, dict):
        return ", ".join(f"{k} {shapes(v)}" for k, v in batch.items())
    if isinstance(batch, list | tuple):
        return ", ".join(shapes(v) for v in batch)
    return type(batch).__name__
