"""From a checked config to data, model, loss, task, optimizer and scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from . import rng, runs
from .api import Context, Data, Logger, Mean, Task
from .build import build, told
from .config import Config
from .data import Loader, Plan, check_size
from .device import autocast, choose_device, choose_precision, describe, set_flags, to_device
from .errors import UserError
from .optim import Averaged, build_optimizer, named_parameters
from .rng import Domain
from .schedule import Horizon, Schedule


@dataclass
class Parts:
    """Everything that takes part in a run."""

    config: Config
    device: torch.device
    precision: str
    data: Data
    model: nn.Module
    averaged: Averaged | None
    task: Task
    task_loss: nn.Module
    parameters: dict[str, nn.Parameter]
    optimizer: Optimizer
    scheduler: Schedule
    train: Loader
    val: Loader | None
    total_steps: int
    fingerprint: dict[str, Any]

    def open_loggers(self, folder: Path, next_step: int) -> list[Logger]:
        offered = {"folder": folder, "next_step": next_step}
        allowed = self.config.allowed_packages
        return [
            build(section, f"logger.{name}", Logger, allowed, offered)
            for name, section in self.config.logger.items()
        ]


def build_parts(config: Config) -> Parts:
    """Build and check all parts. Raises `UserError`."""
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    set_flags(config, precision)
    allowed = config.allowed_packages

    def seed(part: int) -> None:  # each part draws from its own key, whatever the others draw
        rng.seed_all(rng.make_key(config.seed, Domain.INIT, part))

    seed(0)
    data = build(config.data, "data", Data, allowed)
    info = dict(data.info)
    train_set, val_set = data.split("train"), data.split("val")
    if train_set is None:
        raise UserError(f"{config.data['_target_']} has no train split.")
    size = len(train_set)  # type: ignore[arg-type]
    check_size(size, config.batch_size, config.drop_last)
    train_plan = Plan(
        size,
        config.batch_size,
        config.seed,
        drop_last=config.drop_last,
        accumulate=config.accumulate,
        limit=config.limit_train_batches,
    )
    pin = device.type == "cuda"
    train = Loader(train_set, train_plan, data.collate, Domain.SAMPLE, config.workers, pin)
    val = None
    if val_set is not None:
        val_plan = Plan(
            len(val_set),  # type: ignore[arg-type]
            config.batch_size,
            config.seed,
            shuffle=False,
            drop_last=False,
            accumulate=config.accumulate,
            limit=config.limit_val_batches,
        )
        val = Loader(val_set, val_plan, data.collate, Domain.VALIDATION, config.workers, pin)
    total_steps = min(config.epochs * train_plan.steps, config.max_steps or 1 << 62)

    seed(1)
    model: nn.Module = build(config.model, "model", nn.Module, allowed, info)
    memory_format = torch.channels_last if config.channels_last else torch.preserve_format
    model = model.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    seed(2)
    loss: nn.Module = build(config.loss, "loss", nn.Module, allowed, info)
    loss = loss.to(device)
    seed(3)
    task: Task = build(config.task, "task", Task, allowed, {**info, "loss": loss})
    parameters = named_parameters(model, loss)
    optimizer = build_optimizer(config.optimizer, config.lr, parameters, allowed)
    horizon = Horizon(total_steps, train_plan.steps)
    scheduler = build(config.scheduler, "scheduler", Schedule, allowed, {"horizon": horizon})
    averaged = None if config.ema_decay is None else Averaged(model, config.ema_decay)
    fingerprint = runs.fingerprint(describe(device), torch.get_num_threads(), data.fingerprint())
    return Parts(
        config, device, precision, data, model, averaged, task, loss, parameters, optimizer,
        scheduler, train, val, total_steps, fingerprint,
    )  # fmt: skip


@torch.no_grad()
def check_one_batch(parts: Parts) -> None:
    """One validation batch in eval mode: shapes, keys and `monitor`. Raises `UserError`."""
    loader = parts.val or parts.train
    batch = loader.first()
    parts.model.eval()
    ctx = Context(0, 1, training=False, device=parts.device)
    rng.seed_all(rng.make_key(parts.config.seed, Domain.VALIDATION))
    batch = to_device(batch, parts.device, parts.config.channels_last)
    try:
        with autocast(parts.precision, parts.device):
            values = parts.task.validation_step(parts.model, batch, ctx)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        if parts.config.log.level == "debug":
            raise
        raise UserError(
            f"A first batch ({_shapes(batch)}) does not go through the model and the task: "
            f"{told(error)} With log.level=debug you see the traceback."
        ) from error
    _check_values(values)
    names = [f"val/{key}" for key in values]
    if parts.val is not None and parts.config.monitor not in names:
        raise UserError(
            f"monitor={parts.config.monitor} is not among the validation values "
            f"{', '.join(names)}; set monitor to one of them."
        )


def _check_values(values: Any) -> None:
    if not hasattr(values, "items") or "loss" not in values:
        raise UserError("The task's step must return a dict with the key 'loss'.")
    for key, value in values.items():
        tensor = value.value if isinstance(value, Mean) else value
        if not isinstance(tensor, torch.Tensor) or tensor.numel() != 1:
            shape = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor)
            raise UserError(
                f"The task's step returned '{key}' as {shape}; it must be a tensor with one value."
            )


def _shapes(batch: Any) -> str:
    if isinstance(batch, torch.Tensor):
        return "×".join(map(str, batch.shape)) or "scalar"
    if isinstance(batch, dict):
        return ", ".join(f"{k} {_shapes(v)}" for k, v in batch.items())
    if isinstance(batch, list | tuple):
        return ", ".join(_shapes(v) for v in batch)
    return type(batch).__name__
