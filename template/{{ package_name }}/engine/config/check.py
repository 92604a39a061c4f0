"""Refuse configs that cannot work, and ignore keys of earlier releases. Without torch.

To retire a key, delete its field in schema.py, add it to `RETIRED`, and announce it in the
changelog under **Removed**.
"""

import functools
import operator
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..errors import UserError, nearest
from ..text import say, typed
from .hints import hint, words
from .schema import RULES, SECTIONS, Config, Rule, check_value

_TAG = Rule(fits=lambda v: isinstance(v, str) and bool(v.strip()), must_be="a logged value")

_WINDOW = {  # the rules of an entry of `log.windows`
    "source": _TAG,
    "statistic": Rule(one_of=("mean", "max", "min", "current", "std")),
    "window": Rule(
        fits=lambda v: v in ("epoch", "global") or (type(v) is int and v > 0),
        must_be="a number of optimizer steps, epoch or global",
    ),
    "name": _TAG,
}


def from_dict(values: Mapping[str, Any]) -> Config:
    """Return a checked `Config` of a resolved plain dict. Raises `UserError`."""
    known = dict(values)
    _drop_retired(known)
    given = {name: known.pop(name, None) or {} for name in SECTIONS}
    if wrong := next((name for name in given if not isinstance(given[name], dict)), None):
        raise UserError(f"{wrong}={given[wrong]} is not possible. It must be a section of keys.")
    for name in (*known, *(f"{section}.{key}" for section in given for key in given[section])):
        if name not in RULES:
            raise UserError(f"Unknown config key '{name}'.{hint(name, RULES)}")
    known |= {name: section(**given[name]) for name, section in SECTIONS.items()}
    config = Config(**known)
    config.deterministic = str(config.deterministic).lower()  # Hydra reads a bare true as a bool
    config.compile = str(config.compile).lower()
    for name in ("limit_train_batches", "limit_val_batches"):
        if repr(getattr(config, name)) == "1.0":  # all of them, while 1 is one
            setattr(config, name, None)
    _check(config)
    if config.monitor_mode == "auto":
        config.monitor_mode = usual_mode(config.monitor, config.loss) or ""
    if not config.monitor_mode:
        raise UserError(f"Is a larger {config.monitor} better? Set monitor_mode=min or max.")
    return config


def _check(config: Config) -> None:
    for name, rule in RULES.items():
        check_value(name, operator.attrgetter(name)(config), rule)
    if config.ema_warmup and config.ema_decay is None:
        raise UserError("ema_warmup=true needs an average. Set ema_decay=0.999, or leave it out.")
    test = config.find_lr
    if test.start >= test.stop:
        raise UserError(f"find_lr.start={test.start} must be below find_lr.stop={test.stop}.")
    size, ranks = config.batch_size, config.virtual_ranks
    if size % (parts := config.accumulate * (ranks or 1)):
        told = f"virtual_ranks × accumulate = {parts}" if ranks else f"accumulate={parts}"
        raise UserError(f"batch_size={size} must be a multiple of {told}.")
    for name, usual in {"parallel": "ddp", "compile": "false", "sync_batchnorm": False}.items():
        if ranks and (value := getattr(config, name, usual)) != usual:
            both = f"virtual_ranks={ranks} and {name}={typed(value)}"
            raise UserError(f"{both} exclude each other. Leave one of them out.")
    needed = ["task", "data", "model", "loss", "optimizer", "scheduler"]
    for group in [*needed, "mix"] if config.mix else needed:
        if not isinstance(getattr(config, group).get("_target_"), str):
            raise UserError(f"{group}._target_ is missing. Set {group}=NAME, see configs/{group}/.")
    _check_windows(config.log.windows)


def _check_windows(windows: list[Any]) -> None:
    names: set[str] = set()
    for place, entry in enumerate(windows):
        where = f"log.windows[{place}]"
        if not isinstance(entry, Mapping):
            raise UserError(f"{where}={entry} must be {{source: …, statistic: …, window: …}}.")
        for part, value in entry.items():
            if part not in _WINDOW:
                near = nearest(str(part), _WINDOW)
                raise UserError(f"Unknown config key '{where}.{part}'.{near}")
            check_value(f"{where}.{part}", value, _WINDOW[part])
        # "current" needs no window: it is the newest value of any window.
        needed = ["source", "statistic", *["window"] * (entry.get("statistic") != "current")]
        if any(entry.get(part) is None for part in needed):
            raise UserError(f"{where} needs a source, a statistic and a window.")
        name = entry.get("name") or entry["source"]
        if name in names:
            raise UserError(f"{where} has the same name '{name}' as an earlier entry. Change it.")
        names.add(name)


def usual_mode(monitor: str, loss: Mapping[str, Any]) -> str | None:
    """Return "min" or "max" if the name is a usual one, such as val/loss or val/class_acc.

    loss: the config's section. Each term of `loss=terms` counts as a loss.
    """
    name = monitor.removeprefix("val/")
    if isinstance(terms := loss.get("terms"), Mapping) and name in terms:
        return "min"
    parts = re.findall("[a-z0-9]+", name.lower())
    known = words("monitor.yaml")
    modes = {known.get(p) or known.get(p.rstrip("0123456789")) for p in parts} & {"min", "max"}
    modes = modes or {"max" for p in parts if re.fullmatch("top[0-9]+", p)}  # else top5_error
    is_turned = parts[:1] == ["1"] or "turned" in map(known.get, parts)  # as in 1-acc
    return modes.pop() if len(modes) == 1 and not is_turned else None


def refuse_doubtful_mode(config: Config, overrides: Iterable[str]) -> None:
    """Refuse a config file's mode that may not fit `monitor`, unless the command confirms it."""
    given = {override.lstrip("+").split("=")[0] for override in overrides}
    usual, mode = usual_mode(config.monitor, config.loss), config.monitor_mode
    if mode != usual and "monitor_mode" not in given and (usual or "monitor" in given):
        fits = f"{'does' if usual else 'may'} not fit monitor={config.monitor}"
        raise UserError(
            f"monitor_mode={mode} of a config file {fits}. Add monitor_mode=auto, min or max."
        )


class Retired(NamedTuple):
    version: str  # the first release without the key
    default: Any  # what the engine does now; this value needs no warning
    sentence: str  # what happens instead, and what to do


RETIRED = {
    "log.digits": Retired(
        "0.3.0", 4, "The console shows 4 significant digits; read all digits in metrics.jsonl."
    )
}

_say_once = functools.cache(say)


def _drop_retired(values: dict[str, Any]) -> None:
    for key, (version, default, sentence) in RETIRED.items():
        section, _, name = key.rpartition(".")
        holder = values.get(section) if section else values
        is_set = isinstance(holder, dict) and holder.pop(name, default) != default
        if is_set and os.environ.get("RANK", "0") == "0":  # one of several processes says it
            _say_once(f"The config key '{key}' is ignored since release {version}. {sentence}")
