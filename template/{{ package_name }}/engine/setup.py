"""From a checked config to data, model, loss, task, optimizer and schedule."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from . import rng
from .api import Data, Task
from .batches.loader import Loader, check_size, on_device, own_order
from .batches.plan import Plan
from .build.averaged import build_averaged
from .build.content import fingerprint_of
from .build.first_batch import materialise
from .build.init_from import init_from
from .build.kept import modules_beside
from .build.optimizer import build_optimizer, named_parameters
from .build.parts import Built, Parts, build_mix, check_loggers, fixed_subset
from .build.scheduler import build_schedule
from .build.target import build
from .config.schema import Config
from .errors import UserError
from .losses import say_what_counts
from .machine.device import choose_device, choose_precision, make_fingerprint, move_model, set_flags
from .machine.distributed import WORLD_SIZE, from_main, is_main
from .machine.sharding import is_sharded, refuse_unfit, shard
from .machine.torch_internals import leave_compiler_out
from .rng import Domain
from .schedule import Horizon


def build_model(config: Config, info: Mapping[str, Any] | None = None) -> Built:
    """Build data, model, loss and task on the config's device. Raises `UserError`.

    info: that of the data of a run, from its checkpoint. It replaces what the data say today.
    """
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    set_flags(config, precision)
    allowed = config.allowed_packages

    def seed(part: int) -> None:  # so no part changes what the next part draws
        rng.seed_all(rng.make_key(config.seed, Domain.INIT, part))

    seed(0)
    if not is_main():  # the main process downloads, the others wait
        from_main(None)
    data = build(config.data, "data", Data, allowed, None if info is None else {"info": info})
    if is_main():
        from_main(None)
    info = {**data.info, **(info or {})}
    seed(1)
    model: nn.Module = build(config.model, "model", nn.Module, allowed, info)
    if not is_sharded(config):  # else it may be too large for one device
        model = move_model(model, device, config.channels_last)
    seed(2)
    loss = say_what_counts(build(config.loss, "loss", nn.Module, allowed, info), config.loss)
    seed(3)
    task: Task = build(config.task, "task", Task, allowed, {**info, "loss": loss})
    built = Built(config, device, precision, data, info, model, loss, task, task.metrics(info))
    for module in (*modules_beside(built), *built.metrics.values()):
        module.to(device)
    return built


def split_of(built: Built, name: str) -> Dataset[Any] | None:
    """Return a split of the data. A random split does not depend on the order of the calls."""
    rng.seed_all(rng.make_key(built.config.seed, Domain.INIT, 4))
    dataset = built.data.split(name)
    if dataset is not None and hasattr(built.data, "state_dict"):
        if not isinstance(dataset, Dataset):
            raise UserError(f"Data with a state_dict need a Dataset as {name}, not a list.")
        vars(dataset)["reads_ahead"] = False  # a checkpoint holds the state of the last batch read
    if dataset is None or not built.config.data_on_device:
        return dataset
    return on_device(dataset, built.device)  # type: ignore[no-any-return]


def held_out(built: Built, split: str, batch_size: int | None = None) -> Loader | None:
    """Return a loader of a split, in its order, each sample once. None: there is no such split."""
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
        virtual_ranks=None if batch_size else config.virtual_ranks,
    )
    options = config.workers, built.device, config.is_nchw
    return Loader(dataset, plan, built.data.collate, Domain.VALIDATION, *options)


def training_loader(built: Built) -> Loader:
    """Return the loader of the training split. Raises `UserError`."""
    config, data, dataset = built.config, built.data, split_of(built, "train")
    if dataset is None:
        raise UserError(f"{config.data['_target_']} has no train split.")
    try:
        size = len(dataset)  # type: ignore[arg-type]
    except TypeError:
        raise UserError(
            f"The train split of {config.data['_target_']} has no length. The order of a streaming "
            "data set cannot be repeated: give a data set that reads samples by index."
        ) from None
    order, subset = None, fixed_subset(config, data, size)
    size = size if subset is None else len(subset)
    if data.order(1, 0) is not None:
        order = partial(own_order, data.order, config.seed, size)
        size = len(order(0))
    check_size(size, config)
    plan = Plan(
        size,
        config.batch_size,
        config.seed,
        drop_last=config.drop_last,
        accumulate=config.accumulate,
        limit=config.limit_train_batches,
        order=order,
        subset=subset,
        virtual_ranks=config.virtual_ranks,
    )
    options = config.workers, built.device, config.is_nchw
    return Loader(dataset, plan, data.collate, Domain.SAMPLE, *options)


def build_parts(config: Config, initialise: bool = True) -> Parts:
    """Build and check everything that trains. Raises `UserError`.

    initialise: False if the weights come from a checkpoint. Then `init_from` is not read.
    """
    refuse_unfit(config)
    built = build_model(config)
    device, data, model, loss = built.device, built.data, built.model, built.loss
    allowed, info = config.allowed_packages, built.info
    check_loggers(config)
    train, val = training_loader(built), held_out(built, "val")
    materialise(built, train)
    steps_per_epoch = train.plan.steps
    total_steps = min(config.epochs * steps_per_epoch, config.max_steps or 1 << 62)

    if config.sync_batchnorm and WORLD_SIZE > 1:
        if device.type != "cuda":
            raise UserError("sync_batchnorm=true works on GPUs only. On CPUs set it to false.")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if config.init_from is not None and initialise:
        init_from(model, loss, Path(config.init_from), config.init_rename)
    twin = shard(config, model, loss, device, built.precision)
    parameters = named_parameters(model, loss)
    if config.compile == "false":
        leave_compiler_out()
    optimizer = build_optimizer(config.optimizer, config.lr, model, parameters, allowed)
    val_interval = config.val_every_steps or train.plan.interval(config.val_every_epochs)
    validates = val is not None and 0 < val_interval < total_steps
    horizon = Horizon(total_steps, steps_per_epoch, config.lr, config.monitor_mode, validates)
    data_fingerprint, data_sums = fingerprint_of(data, config)
    return Parts(
        **{**vars(built), "model": model},
        averaged=build_averaged(config, model, optimizer, twin),
        mix=build_mix(config, info),
        parameters=parameters,
        optimizer=optimizer,
        scheduler=build_schedule(config.scheduler, horizon, allowed),
        train=train,
        val=val,
        total_steps=total_steps,
        val_interval=val_interval,
        fingerprint=make_fingerprint(
            device, data_fingerprint, config.parallel, train.plan.processes
        ),
        data_sums=data_sums,
    )
