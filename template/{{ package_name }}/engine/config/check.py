"""Refuse configs that cannot work: unknown keys and values against their rules. Without torch."""

import operator
from collections.abc import Mapping
from typing import Any

from ..errors import UserError, nearest
from ..paths import CONFIGS
from .retired import without_retired
from .rules import check_value
from .schema import RULES, SECTIONS, Config

_STATISTICS = ("mean", "max", "min", "current", "std")

_WINDOW_KEYS = ("source", "statistic", "window", "name")


def from_dict(values: Mapping[str, Any], is_stored: bool = False) -> Config:
    """Return a checked `Config` of a resolved plain dict. Raises `UserError`.

    is_stored: the values are those of a run that was made before, not of this command.
    """
    known = without_retired(values, is_stored)
    for name, section in SECTIONS.items():
        given = known.pop(name, None) or {}
        for inner in given:
            _refuse_unknown(f"{name}.{inner}")
        known[name] = section(**given)
    for name in known:
        if name not in SECTIONS:
            _refuse_unknown(name)
    config = Config(**known)
    config.deterministic = config.deterministic.lower()  # Hydra reads a bare true as a bool
    config.compile = config.compile.lower()
    check(config)
    return config


def _refuse_unknown(name: str) -> None:
    if name not in RULES:
        raise UserError(f"Unknown config key '{name}'.{nearest(name, RULES)}")


def check(config: Config) -> None:
    """Refuse values that cannot work, each in one sentence with the key. Raises `UserError`."""
    for name, rule in RULES.items():
        check_value(name, operator.attrgetter(name)(config), rule)
    if config.find_lr.start >= config.find_lr.stop:
        raise UserError(
            f"find_lr.start={config.find_lr.start} must be below find_lr.stop={config.find_lr.stop}."
        )
    if config.batch_size % config.accumulate:
        raise UserError(
            f"batch_size={config.batch_size} cannot be divided into accumulate="
            f"{config.accumulate} equal micro-batches."
        )
    for group in ("task", "data", "model", "loss", "optimizer", "scheduler"):
        if not isinstance(getattr(config, group).get("_target_"), str):
            example = next((p.stem for p in sorted((CONFIGS / group).glob("*.yaml"))), "NAME")
            raise UserError(
                f"The config has no {group}._target_. Choose a {group} in configs/train.yaml, such "
                f"as {group}={example}."
            )
    _check_windows(config.log.windows)


def _check_windows(windows: list[Any]) -> None:
    names: set[str] = set()
    for place, entry in enumerate(windows):
        where = f"log.windows[{place}]"
        if not isinstance(entry, Mapping):
            raise UserError(f"{where}={entry} must be {{source: …, statistic: …, window: …}}.")
        for part in entry:
            if part not in _WINDOW_KEYS:
                near = nearest(str(part), _WINDOW_KEYS)
                raise UserError(f"Unknown config key '{where}.{part}'.{near}")
        if "source" not in entry or "statistic" not in entry:
            raise UserError(f"{where} needs a source, a statistic and a window.")
        for part in ("source", "name"):
            value = entry.get(part, "-")
            if not isinstance(value, str) or not value.strip():
                raise UserError(f"{where}.{part}={value!r} must be the name of a logged value.")
        if entry["statistic"] not in _STATISTICS:
            raise UserError(
                f"{where}.statistic={entry['statistic']} is not one of {', '.join(_STATISTICS)}."
            )
        # "current" needs no window: it is the newest value of any window.
        window = entry.get("window", "global" if entry["statistic"] == "current" else None)
        if window not in ("epoch", "global") and (type(window) is not int or window < 1):
            raise UserError(
                f"{where}.window={window} must be a number of optimizer steps, epoch or global."
            )
        name = entry.get("name", entry["source"])
        if name in names:
            raise UserError(
                f"{where} has the same name '{name}' as an earlier entry. Give it another `name`."
            )
        names.add(name)
