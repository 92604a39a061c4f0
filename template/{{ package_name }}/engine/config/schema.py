"""Every config key with its type, its default and its rule. help.yaml says what each key means.

check.py applies the rules. A key without `key(…)` takes all values of its type.
"""

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
    """The values that a config key takes: for the check, `--help` and the docs."""

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


def key(default: Any, **rule: Any) -> Any:
    """Return a config field; `default` is a value, or a class that makes one for each config."""
    made = {"default_factory" if callable(default) else "default": default}
    return dataclasses.field(**made, metadata={"rule": Rule(**rule)})


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
    every: int = key(50, at_least=1)
    by: str = key("step", one_of=("step", "epoch"))
    windows: list[Any] = key(list)
    level: str = key("info", one_of=("debug", "info", "warning", "error"))
    grad_norm: bool = False
    curves: bool = True
    images: int = key(16, at_least=0)
    graph: bool = True
    histograms: int | None = key(None, at_least=1)


@dataclass
class FindLr:
    """The range of `python find_lr.py`. Training does not read it."""

    start: float = key(1e-6, above=0)
    stop: float = key(10.0, above=0)
    steps: int = key(150, at_least=20)


@dataclass
class Config:
    """The top level of the config. Groups (data, model …) hold the keys of their YAML file."""

    name: str = key("default", fits=is_run_name, must_be="a path below runs/ of at most 200 bytes")
    seed: int = key(0, at_least=0, below=2**63)
    epochs: int = key(20, at_least=1)
    max_steps: int | None = key(None, at_least=1)
    vars: dict[str, Any] = key(dict)

    batch_size: int = key(64, at_least=1)
    drop_last: bool = True
    accumulate: int = key(1, at_least=1)
    lr: float = key(0.001, above=0)
    clip_grad_norm: float | None = key(None, above=0)
    clip_grad_value: float | None = key(None, above=0)
    ema_decay: float | None = key(None, above=0, below=1)
    ema_warmup: bool = False

    device: str = "auto"
    precision: str = key("auto", one_of=("auto", "fp32", "tf32", "bf16", "fp16"))
    deterministic: str = key("true", one_of=("true", "warn", "false"))
    channels_last: bool = False
    sync_batchnorm: bool = False
    compile: str = key("false", one_of=("false", "true", "reduce-overhead"))
    workers: int | None = key(None, at_least=0, at_most=1024)
    data_on_device: bool = False

    monitor: str = key(
        "val/loss",
        fits=lambda tag: tag.startswith("val/"),
        must_be="a validation value, such as val/loss",
    )
    monitor_mode: str = key("auto", one_of=("auto", "min", "max"))
    val_every_epochs: int | float = key(1, at_least=0)
    val_every_steps: int | None = key(None, at_least=1)
    val_at_start: bool = False
    save_every_epochs: int = key(1, at_least=0)
    save_every_steps: int | None = key(None, at_least=1)
    keep_last: int | None = key(3, at_least=1)
    early_stopping_patience: int | None = key(None, at_least=0)
    max_minutes: float | None = key(None, above=0)
    limit_train_batches: int | float | None = key(None, **_SHARE)
    limit_val_batches: int | float | None = key(None, **_SHARE)

    resume: str | None = None
    allow_changed_data: bool = False
    profile: bool = False
    dry_run: bool = False
    init_from: str | None = None
    init_rename: list[str] = key(
        list,
        fits=lambda rules: all("=>" in rule for rule in rules),
        must_be="a list of 'pattern=>replacement'",
    )
    allowed_packages: list[str] = key(list)

    log: Log = key(Log)
    find_lr: FindLr = key(FindLr)

    task: dict[str, Any] = key(dict)
    data: dict[str, Any] = key(dict)
    model: dict[str, Any] = key(dict)
    loss: dict[str, Any] = key(dict)
    mix: dict[str, Any] = key(dict)
    optimizer: dict[str, Any] = key(dict)
    scheduler: dict[str, Any] = key(dict)
    logger: dict[str, Any] = key(dict)


FIELDS = {f.name: f for f in dataclasses.fields(Config)}

SECTIONS: dict[str, Any] = {"log": Log, "find_lr": FindLr}

GROUPS = ("data", "model", "loss", "mix", "optimizer", "scheduler", "logger", "task")

OWN_KEYS = {
    "data": ("subset",),
    "optimizer": ("groups", "layer_decay", "no_decay_norm_bias"),
    "scheduler": ("warmup_steps", "warmup_epochs", "warmup_fraction", "interval"),
}
"""Keys of a group that the engine reads itself."""

_OPERATIONAL = """
    device workers data_on_device val_every_epochs val_every_steps save_every_epochs
    save_every_steps keep_last max_minutes resume allow_changed_data allowed_packages profile dry_run
    log find_lr logger
"""
OPERATIONAL = frozenset(_OPERATIONAL.split())
"""Top-level keys that a resumed run may change, because they do not change the result."""

LENGTH = frozenset({"epochs", "max_steps"})  # the schedule depends on them
EXTENDING = LENGTH | {"early_stopping_patience"}
"""Top-level keys that a resumed run may raise, to train for longer."""


RULES: dict[str, Rule] = {
    f"{prefix}{field.name}": replace(field.metadata.get("rule", Rule()), kind=str(field.type))
    for prefix, kind in (("", Config), ("log.", Log), ("find_lr.", FindLr))
    for field in dataclasses.fields(kind)
    if field.name not in SECTIONS
}
"""The rule of every key by its dotted name."""
