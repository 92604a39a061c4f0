"""Every config key with its type, its default, its meaning and its rule. check.py applies the rules."""

from __future__ import annotations

# ruff: noqa: RUF009 - `key` returns a dataclass field
import dataclasses
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..errors import UserError
from ..text import typed


@dataclass(frozen=True)
class Rule:
    """What a config key means and which values it takes: for the check, `--help` and the docs."""

    meaning: str = ""
    heading: str = ""  # the title above this key and the keys after it
    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf
    one_of: tuple[str, ...] = ()
    fits: Callable[[Any], bool] | None = None  # returns True for a value that can work
    must_be: str = ""  # the allowed values in words, where `fits` decides
    kind: str = ""  # the type of the field, such as "int | None"; "": any type

    def allows(self, value: Any) -> bool:
        """Return True if the value can work. Its type is checked before."""
        if self.fits is not None:
            return self.fits(value)
        if self.one_of:
            return value in self.one_of
        if self.limits() or isinstance(value, float):
            return self.at_least <= value <= self.at_most and self.above < value < self.below
        return True

    def limits(self) -> str:
        """Return the allowed values in words, such as "at least 1"; "" if all of the type are."""
        if self.one_of:
            return f"one of {', '.join(self.one_of)}"
        words = ("at least", "above", "at most", "below")
        bounds = zip(words, (self.at_least, self.above, self.at_most, self.below), strict=True)
        in_words = [f"{word} {bound:g}" for word, bound in bounds if math.isfinite(bound)]
        return self.must_be or " and ".join(in_words)


def check_value(name: str, value: Any, rule: Rule) -> None:
    """Refuse a value that its rule does not allow. Raises `UserError`.

    The type is checked too: OmegaConf does not look at values that are computed (`${lr}`) or stored.
    """
    kinds = re.sub(r"\[.*?\]", "", rule.kind).replace("float", "float | int").split(" | ")
    if rule.kind and ("None" if value is None else type(value).__name__) not in kinds:
        raise UserError(f"{name}={typed(value)} is not possible. Its type is {rule.kind}.")
    if value is not None and not rule.allows(value):
        raise UserError(f"{name}={value} is not possible. It must be {rule.limits()}.")


def key(default: Any, meaning: str, **rule: Any) -> Any:
    """Return a config field; `default` is a value, or a class that makes one for each config."""
    made = {"default_factory" if callable(default) else "default": default}
    return dataclasses.field(**made, metadata={"rule": Rule(meaning, **rule)})


def is_count_or_share(value: Any) -> bool:
    """Return True for a whole number from 1 on, or a share such as 0.25: a float up to 1.0."""
    return value >= 1 if type(value) is int else type(value) is float and 0 < value <= 1


_SHARE = {"fits": is_count_or_share, "must_be": "1, 2, … or a share up to 1.0"}


def is_run_name(name: str) -> bool:
    """Return True if `name` can be a folder below runs/."""
    return (
        name.isprintable()
        and not set(name) & set('\\:*?"<>|')
        and ".." not in name
        and not name.startswith("~")
        and len(os.fsencode(name)) <= 200
        and all(part and part == part.strip() and part[0] != "." for part in name.split("/"))
    )


@dataclass
class Log:
    every: int = key(50, "Optimizer steps between two log points.", at_least=1, heading="Log")
    by: str = key("step", "epoch: log points only at epoch ends.", one_of=("step", "epoch"))
    windows: list[Any] = key(
        list, "Statistics besides means, such as {source: loss, statistic: max, window: 10}."
    )
    level: str = key(
        "info", "Lowest level that the console shows.", one_of=("debug", "info", "warning", "error")
    )
    grad_norm: bool = key(False, "Log the norm of all gradients even if they are not clipped.")
    curves: bool = key(True, "Draw `curves.png` into the run folder when the run is finished.")
    images: int = key(16, "Pictures in each grid that loggers show; 0: none.", at_least=0)
    graph: bool = key(True, "Let loggers draw the model's graph after the first step.")
    histograms: int | None = key(
        None, "Optimizer steps between histograms of weights and gradients; null: none.", at_least=1
    )


@dataclass
class FindLr:
    """The range of `python find_lr.py`. Training does not read it."""

    start: float = key(
        1e-6, "Learning rate of the first step.", above=0, heading="Learning-rate range test"
    )
    stop: float = key(10.0, "Learning rate of the last step.", above=0)
    steps: int = key(150, "Optimizer steps, at equal ratios of the learning rate.", at_least=20)


@dataclass
class Config:
    """The top level of the config. Groups (data, model …) hold the keys of their YAML file."""

    name: str = key(
        "default",
        "Runs are kept in `runs/<name>/`.",
        fits=is_run_name,
        must_be="a path below runs/ of at most 200 bytes",
        heading="Run",
    )
    seed: int = key(0, "Same seed, same run. 0 is a seed like any other.", at_least=0, below=2**63)
    epochs: int = key(20, "Passes over the training set.", at_least=1)
    max_steps: int | None = key(None, "End after so many optimizer steps at most.", at_least=1)
    tags: list[str] = key(
        list,
        "Words to find the run by, such as [baseline, paper].",
        fits=lambda tags: all(type(tag) is str and tag.strip() for tag in tags),
        must_be="a list of words",
    )
    vars: dict[str, Any] = key(dict, "Your own keys, for `${vars.NAME}` in other keys.")

    batch_size: int = key(
        64,
        "Samples per optimizer step, over all processes and accumulated micro-batches.",
        at_least=1,
        heading="Batch and optimization",
    )
    drop_last: bool = key(True, "Leave out the incomplete batch at the end of an epoch.")
    accumulate: int = key(1, "Micro-batches whose gradients make one optimizer step.", at_least=1)
    virtual_ranks: int | None = key(
        None,
        "Compute each step in so many fixed parts: the same weights on 1, 2, 4 … processes.",
        fits=lambda count: count > 1 and count.bit_count() == 1,
        must_be="2, 4, 8, 16 …",
    )
    lr: float = key(0.001, "Base learning rate; the scheduler multiplies it.", above=0)
    clip_grad_norm: float | None = key(None, "Scale gradients down to this total norm.", above=0)
    clip_grad_value: float | None = key(None, "Cut each gradient to this absolute value.", above=0)
    ema_decay: float | None = key(
        None, "Average the weights with this decay, and validate the average.", above=0, below=1
    )
    ema_warmup: bool = key(False, "After t steps, lower `ema_decay` to (1 + t) / (10 + t) at most.")

    device: str = key("auto", "auto (the GPU, if any), cpu, cuda, cuda:1 …", heading="Machine")
    precision: str = key(
        "auto",
        "Number format of the model. auto: bf16 on a GPU that has it, else fp32.",
        one_of=("auto", "fp32", "tf32", "bf16", "fp16"),
    )
    deterministic: str = key(
        "true",
        "true: only what repeats exactly; warn: warn about the rest; false: the fastest kernels.",
        one_of=("true", "warn", "false"),
    )
    channels_last: bool = key(False, "Lay out images and convolutions as NHWC in memory.")
    contiguous: bool | None = key(None, "Lay out images as NCHW. null: as the data return them.")
    parallel: str = key(
        "ddp",
        "With several processes, ddp: each holds the whole model; fsdp: they divide it; hsdp: those of a "
        "host divide it.",
        one_of=("ddp", "fsdp", "hsdp"),
    )
    sync_batchnorm: bool = key(False, "Take the statistics of batch norm over all processes.")
    compile: str = key(
        "false",
        "true: `torch.compile`; reduce-overhead: with CUDA graphs, for small models on a GPU.",
        one_of=("false", "true", "reduce-overhead"),
    )
    workers: int | None = key(
        None,
        "Loader workers. null: one per CPU core, at most 8; none for data that are read quickly.",
        at_least=0,
        at_most=1024,
    )
    data_on_device: bool = key(False, "Keep in-memory data on the GPU and augment them there.")

    monitor: str = key(
        "val/loss",
        "The validation value that chooses `best.pt`.",
        fits=lambda tag: tag.startswith("val/"),
        must_be="a validation value, such as val/loss",
        heading="Validation and checkpoints",
    )
    monitor_mode: str = key(
        "auto",
        "Whether a smaller (min) or a larger (max) `monitor` is better. auto: as its name says.",
        one_of=("auto", "min", "max"),
    )
    val_every_epochs: int | float = key(
        1, "Epochs between validations, such as 0.25; 0: only at the end.", at_least=0
    )
    val_every_steps: int | None = key(None, "Validate every so many steps instead.", at_least=1)
    val_at_start: bool = key(False, "Validate the first weights too, before the first step.")
    save_every_epochs: int = key(1, "Epochs between checkpoints; 0: only at the end.", at_least=0)
    save_every_steps: int | None = key(None, "Save every so many steps, too.", at_least=1)
    keep_last: int | None = key(3, "Newest checkpoints, besides `best.pt`; null: all.", at_least=1)
    early_stopping_patience: int | None = key(
        None, "End when more validations in a row than this do not improve `monitor`.", at_least=0
    )
    test: bool = key(False, "At the end, evaluate `best.pt` on the test split.")
    max_minutes: float | None = key(None, "Stop, save and exit with 75 after this time.", above=0)
    limit_train_batches: int | float | None = key(
        None, "Use only so many batches of an epoch, or this share of them.", **_SHARE
    )
    limit_val_batches: int | float | None = key(
        None, "Use only so many batches of validation, or this share of them.", **_SHARE
    )

    resume: str | None = key(
        None,
        "A run folder to go on in, or `auto`: the newest run of this name with an equal config.",
        heading="Start",
    )
    allow_changed_data: bool = key(False, "Go on although the data have changed meanwhile.")
    detect_anomaly: bool = key(False, "Name the operation that makes a gradient NaN. It is slow.")
    profile: bool = key(False, "Trace a few steps into the run folder; a table in train.log.")
    dry_run: bool = key(False, "Build everything, do two steps, try a resume, and leave no run.")
    init_from: str | None = key(
        None, "Weights to start from: a checkpoint, a `.pt` state dict or a `.safetensors` file."
    )
    init_rename: list[str] = key(
        list,
        "For `init_from`: pattern=>replacement, regular expressions over the file's keys.",
        fits=lambda rules: all("=>" in rule for rule in rules),
        must_be="a list of 'pattern=>replacement'",
    )
    allowed_packages: list[str] = key(
        list, "Packages that `_target_` may name, besides the project, torch and torchvision."
    )

    log: Log = key(Log, "Log points, console and loggers.")
    find_lr: FindLr = key(FindLr, "The range of `python find_lr.py`.")

    task: dict[str, Any] = key(dict, "What one step computes.", heading="Groups")
    data: dict[str, Any] = key(dict, "The data set.")
    model: dict[str, Any] = key(dict, "The model.")
    loss: dict[str, Any] = key(dict, "The loss.")
    mix: dict[str, Any] = key(dict, "MixUp and CutMix.")
    optimizer: dict[str, Any] = key(dict, "The optimizer and its parameter groups.")
    scheduler: dict[str, Any] = key(dict, "The learning rate as a function of the step.")
    logger: dict[str, Any] = key(dict, "Where logged values go.")

    @property
    def is_nchw(self) -> bool:
        """Whether batches of images are contiguous in memory."""
        return bool(self.contiguous) and not self.channels_last


FIELDS = {f.name: f for f in dataclasses.fields(Config)}

SECTIONS: dict[str, Any] = {"log": Log, "find_lr": FindLr}

GROUPS = ("data", "model", "loss", "mix", "optimizer", "scheduler", "logger", "task")

OWN_KEYS = {
    "data": {
        "subset": "Train on a fixed part of the data: a number of samples, or a share of them.",
        "folds": "Cross-validation: cut all data but the test split into so many parts.",
        "fold": "Number of the part that is held out for validation: 0,1,2,3,4.",
        "fingerprint": "content: hash every file of the data at each start, not only names and sizes.",
    },
    "optimizer": {
        "groups": "Parameter groups, such as [{name: head, match: 'fc.*'}, {name: rest, match: '*'}].",
        "layer_decay": "Each layer's learning rate as a share of the next layer's, such as 0.75.",
        "no_decay_norm_bias": "Apply no weight decay to biases and norms.",
    },
    "scheduler": {
        "warmup_steps": "Length of the linear warm-up in steps.",
        "warmup_epochs": "Length of the linear warm-up in epochs.",
        "warmup_fraction": "Length of the linear warm-up as a share of the run.",
        "interval": "How often the learning rate changes: step or epoch.",
    },
}
"""Keys of a group that the engine reads itself, with their meaning."""

_OPERATIONAL = """
    device workers data_on_device val_every_epochs val_every_steps save_every_epochs
    save_every_steps keep_last max_minutes resume allow_changed_data allowed_packages profile dry_run
    log find_lr logger tags test detect_anomaly parallel
"""
OPERATIONAL = frozenset(_OPERATIONAL.split())
"""Top-level keys that a resumed run may change, because they do not change the result."""

LENGTH = frozenset({"epochs", "max_steps"})  # the schedule depends on them
EXTENDING = LENGTH | {"early_stopping_patience"}
"""Top-level keys that a resumed run may raise, to train for longer."""


RULES: dict[str, Rule] = {
    f"{prefix}{field.name}": replace(field.metadata["rule"], kind=str(field.type))
    for prefix, kind in (("", Config), ("log.", Log), ("find_lr.", FindLr))
    for field in dataclasses.fields(kind)
    if field.name not in SECTIONS
}
"""The rule of every key by its dotted name."""
