"""Every config key, its default and its meaning; checked before torch is imported."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError, nearest
from ..paths import CONFIGS


@dataclass
class Log:
    every: int = 50
    """Optimizer steps between two log points."""
    by: str = "step"
    """step: a log point every `log.every` steps and at each epoch's end; epoch: at its end only."""
    windows: list[Any] = field(default_factory=list)
    """Statistics besides means: {source: loss, name: loss_max, statistic: max, window: 10} …"""
    digits: int = 4
    """Significant digits on the console; files hold all of them."""
    level: str = "info"
    """Least level that the console shows: debug, info, warning or error."""
    curves: bool = True
    """Draw `curves.png` into the run folder when the run is finished."""
    images: int = 16
    """Pictures in each grid of inputs, predictions and mistakes that loggers show; 0 for none."""
    graph: bool = True
    """Let loggers draw the model's graph after the first step."""
    histograms: int | None = None
    """Optimizer steps between histograms of weights and gradients in the loggers."""


@dataclass
class FindLr:
    """The range of `python find_lr.py`; training does not read it."""

    start: float = 1e-6
    """Learning rate of the first step."""
    stop: float = 10.0
    """Learning rate of the last step, unless the loss explodes before."""
    steps: int = 150
    """Optimizer steps in between, at equal ratios."""


@dataclass
class Config:
    """The top level of the config. Groups (data, model …) hold what their YAML file says."""

    # Run
    name: str = "default"
    """Runs are kept in `runs/<name>/`."""
    seed: int = 0
    """Same seed, same run. 0 is a seed like any other."""
    epochs: int = 20
    """Passes over the training set."""
    max_steps: int | None = None
    """Ends the run after this many optimizer steps, if that is earlier."""

    # Batch and optimization
    batch_size: int = 64
    """Samples per optimizer step, over all processes and accumulated micro-batches."""
    drop_last: bool = True
    """Leave out the incomplete batch at the end of an epoch."""
    accumulate: int = 1
    """Micro-batches whose gradients make one optimizer step."""
    lr: float = 0.001
    """Base learning rate; the scheduler multiplies it."""
    clip_grad_norm: float | None = None
    """Gradients with a larger total norm are scaled down to it."""
    clip_grad_value: float | None = None
    """Each gradient is cut to this absolute value."""
    ema_decay: float | None = None
    """Keep an exponential moving average of the weights with this decay, and validate that."""

    # Machine
    device: str = "auto"
    """auto (the GPU where there is one), cpu, cuda, cuda:1 …"""
    precision: str = "auto"
    """auto (bf16 on a GPU that has it, else fp32), fp32, tf32, bf16 or fp16."""
    deterministic: str = "true"
    """true: only deterministic kernels; warn: warn about others; false: the fastest."""
    channels_last: bool = False
    """Lay out images and convolutions as NHWC in memory."""
    sync_batchnorm: bool = False
    """With several processes, batch norm takes its statistics over all of them."""
    compile: str = "false"
    """true: compile the model with `torch.compile`; reduce-overhead: with CUDA graphs, for small
    models on a GPU."""
    workers: int | None = None
    """Loader processes; null takes one per CPU core, at most 8, or none for what is read quickly.
    Results do not depend on it."""
    data_on_device: bool = False
    """Keep data that are in memory on the GPU and augment them there. Batches do not depend on it."""

    # Validation and checkpoints
    monitor: str = "val/loss"
    """The validation value by which `best.pt` is chosen."""
    monitor_mode: str = "min"
    """min or max: which direction of `monitor` is better."""
    val_every_epochs: int = 1
    """Epochs between validations; 0 for none but the last."""
    val_every_steps: int | None = None
    """Validate every so many optimizer steps instead of by epochs."""
    val_at_start: bool = False
    """Validate before the first step too: what the weights are worth that a run starts from."""
    save_every_epochs: int = 1
    """Epochs between checkpoints; 0 for none but the last."""
    save_every_steps: int | None = None
    """Save every so many optimizer steps, besides by epochs."""
    keep_last: int = 3
    """Newest checkpoints that are kept, besides `best.pt`."""
    early_stopping_patience: int | None = None
    """End the run when so many validations in a row have not made `monitor` better."""
    max_minutes: float | None = None
    """Stop, save and exit with 75 after this time; `resume=` goes on."""
    limit_train_batches: int | None = None
    """Use only so many batches of each training epoch."""
    limit_val_batches: int | None = None
    """Use only so many batches of each validation."""

    # Start
    resume: str | None = None
    """A run folder to go on in, or `auto`: the newest run of this name with an equal config."""
    allow_changed_data: bool = False
    """Go on although the data are not those that the checkpoint was trained on."""

    profile: bool = False
    """Measure a few steps: a chrome trace in the run folder, a table in train.log."""

    dry_run: bool = False
    """Do everything up to the first step, show it, and leave no run."""

    init_from: str | None = None
    """Weights to start from: a checkpoint, a `.pt` state dict or a `.safetensors` file."""
    init_rename: list[str] = field(default_factory=list)
    """For `init_from`: "pattern=>replacement", regular expressions over the file's keys."""

    allowed_packages: list[str] = field(default_factory=list)
    """Packages beside the project, torch and torchvision from which `_target_` may build things."""

    log: Log = field(default_factory=Log)
    find_lr: FindLr = field(default_factory=FindLr)

    # Groups
    task: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    mix: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)


FIELDS = {f.name: f for f in dataclasses.fields(Config)}

SECTIONS: dict[str, Any] = {"log": Log, "find_lr": FindLr}

GROUPS = ("data", "model", "loss", "mix", "optimizer", "scheduler", "logger", "task")

OPERATIONAL = frozenset(
    [
        "workers",
        "data_on_device",
        "log",
        "save_every_epochs",
        "save_every_steps",
        "val_every_epochs",
        "val_every_steps",
        "keep_last",
        "device",
        "max_minutes",
        "logger",
        "profile",
        "resume",
        "allow_changed_data",
        "dry_run",
        "find_lr",
    ]
)
"""Keys that a resumed run may change, because they do not change the result."""

EXTENDING = frozenset({"epochs", "max_steps"})
"""Keys that a resumed run may raise, to go on longer."""

_AT_LEAST = {
    "seed": 0,
    "epochs": 1,
    "max_steps": 1,
    "batch_size": 1,
    "accumulate": 1,
    "workers": 0,
    "val_every_epochs": 0,
    "val_every_steps": 1,
    "save_every_epochs": 0,
    "save_every_steps": 1,
    "keep_last": 1,
    "limit_train_batches": 1,
    "limit_val_batches": 1,
    "early_stopping_patience": 0,
}

_ABOVE_ZERO = ("lr", "clip_grad_norm", "clip_grad_value", "max_minutes")

_ONE_OF = {
    "precision": ("auto", "fp32", "tf32", "bf16", "fp16"),
    "compile": ("false", "true", "reduce-overhead"),
    "deterministic": ("true", "warn", "false"),
    "monitor_mode": ("min", "max"),
}

_LEVELS = ("debug", "info", "warning", "error")

_STATISTICS = ("mean", "max", "min", "current", "std")

_WINDOW_KEYS = ("source", "statistic", "window", "name")


def flat_keys(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    """All dotted keys of a nested mapping."""
    keys = []
    for key, value in tree.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            keys += flat_keys(value, f"{prefix}{key}.")
    return keys


def from_dict(values: Mapping[str, Any]) -> Config:
    """A checked `Config` from a resolved plain dict. Raises `UserError`."""
    for key in values:
        if key not in FIELDS:
            raise UserError(f"Unknown config key '{key}'.{nearest(key, FIELDS)}")
    known = dict(values)
    for name, section in SECTIONS.items():
        given = known.pop(name, None) or {}
        for key in given:
            if key not in section.__dataclass_fields__:
                near = nearest(key, section.__dataclass_fields__)
                raise UserError(f"Unknown config key '{name}.{key}'.{near}")
        known[name] = section(**given)
    config = Config(**known)
    config.deterministic = config.deterministic.lower()  # Hydra reads a bare true as a bool
    config.compile = config.compile.lower()
    check(config)
    return config


def check(config: Config) -> None:
    """Refuse impossible values, each in one sentence that names the key. Raises `UserError`."""
    for key, least in _AT_LEAST.items():
        value = getattr(config, key)
        if value is not None and value < least:
            raise UserError(f"{key}={value} is too small: it must be at least {least}.")
    for key in _ABOVE_ZERO:
        value = getattr(config, key)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise UserError(f"{key}={value} is impossible: it must be a finite number above 0.")
    for key, choices in _ONE_OF.items():
        value = getattr(config, key)
        if value not in choices:
            raise UserError(f"{key}={value} is not one of {', '.join(choices)}.")
    if config.workers is not None and config.workers > 1024:
        raise UserError(
            f"workers={config.workers} is too large: it must be at most 1024 processes."
        )
    if config.seed >= 1 << 63:
        raise UserError(f"seed={config.seed} is too large: it must be below 2^63.")
    if config.ema_decay is not None and not 0 < config.ema_decay < 1:
        raise UserError(f"ema_decay={config.ema_decay} must be between 0 and 1, such as 0.999.")
    if config.log.every < 1:
        raise UserError(f"log.every={config.log.every} is too small: it must be at least 1.")
    if config.log.images < 0:
        raise UserError(f"log.images={config.log.images} is too small: it must be at least 0.")
    if config.log.histograms is not None and config.log.histograms < 1:
        raise UserError(
            f"log.histograms={config.log.histograms} is too small: it must be at least 1, or null."
        )
    if config.log.level not in _LEVELS:
        raise UserError(f"log.level={config.log.level} is not one of {', '.join(_LEVELS)}.")
    _check_log(config.log)
    test = config.find_lr
    if not 0 < test.start < test.stop < math.inf:
        raise UserError(
            f"find_lr.start={test.start} and find_lr.stop={test.stop} are no range: start must be "
            "above 0 and below stop."
        )
    if test.steps < 20:
        raise UserError(f"find_lr.steps={test.steps} is too small: it must be at least 20.")
    for rule in config.init_rename:
        if "=>" not in rule:
            raise UserError(f"init_rename={rule} must be 'pattern=>replacement'.")
    if config.batch_size % config.accumulate:
        raise UserError(
            f"batch_size={config.batch_size} cannot be divided into accumulate="
            f"{config.accumulate} equal micro-batches."
        )
    if not config.monitor.startswith("val/"):
        raise UserError(
            f"monitor={config.monitor} is no validation value: name one as val/<key>, "
            "such as val/loss."
        )
    if not config.name or any(c in config.name for c in '\\:*?"<>|\0\n') or ".." in config.name:
        raise UserError(f"name={config.name!r} cannot be a folder's name.")
    if len(os.fsencode(config.name)) > 200:
        raise UserError(
            f"name={config.name[:40]} … is too long: a folder's name, at most 200 bytes."
        )
    parts = config.name.split("/")
    if config.name.startswith("~") or any(
        p.startswith(".") or p != p.strip() or not p for p in parts
    ):
        raise UserError(f"name={config.name!r} must be a folder below runs/, such as 'baseline'.")
    for group in ("task", "data", "model", "loss", "optimizer", "scheduler"):
        section = getattr(config, group)
        if not isinstance(section.get("_target_"), str):
            raise UserError(
                f"The config has no {group}._target_; choose a {group} in configs/train.yaml, "
                f"such as {group}={_example(group)}."
            )


def _check_log(log: Log) -> None:
    if log.by not in ("step", "epoch"):
        raise UserError(f"log.by={log.by} is not one of step, epoch.")
    if not 1 <= log.digits <= 17:
        raise UserError(f"log.digits={log.digits} is impossible: it must be between 1 and 17.")
    names: set[str] = set()
    for place, entry in enumerate(log.windows):
        where = f"log.windows[{place}]"
        if not isinstance(entry, Mapping):
            raise UserError(f"{where}={entry} must be {{source: …, statistic: …, window: …}}.")
        for key in entry:
            if key not in _WINDOW_KEYS:
                near = nearest(str(key), _WINDOW_KEYS)
                raise UserError(f"Unknown config key '{where}.{key}'.{near}")
        for key in ("source", "statistic"):
            if key not in entry:
                raise UserError(
                    f"{where} has no {key}; it needs a source, a statistic and a window."
                )
        for key in ("source", "name"):
            value = entry.get(key, "-")
            if not isinstance(value, str) or not value.strip():
                raise UserError(f"{where}.{key}={value!r} must be the name of a logged value.")
        if entry["statistic"] not in _STATISTICS:
            raise UserError(
                f"{where}.statistic={entry['statistic']} is not one of {', '.join(_STATISTICS)}."
            )
        # The current value is the last one, in whatever window.
        window = entry.get("window", "global" if entry["statistic"] == "current" else None)
        if window not in ("epoch", "global") and (type(window) is not int or window < 1):
            raise UserError(
                f"{where}.window={window} is no window: give a number of optimizer steps, epoch or "
                "global."
            )
        name = entry.get("name", entry["source"])
        if name in names:
            raise UserError(
                f"{where} has the name '{name}' of an entry before it; give it another `name`."
            )
        names.add(name)


def _example(group: str) -> str:
    return next((path.stem for path in sorted((CONFIGS / group).glob("*.yaml"))), "NAME")
