"""The config of a run: write it to the run folder, read it, compare it with a new config."""

import contextlib
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError, one_line
from ..paths import CONFIGS, OF_TOOLS, shown
from ..text import say, typed
from .check import RETIRED, from_dict
from .compose import compose
from .schema import EXTENDING, OPERATIONAL, Config

MOVABLE = ("root", "path", "leave_out", "cache")
"""Keys of `data` that a resumed run may change: the fingerprint tells whether the data differ."""

_NEWER: dict[str, Any] = {
    **{"test_fraction": 0.0, "colour_share": 0.05, "range": "auto", "background": "white"},
    **{"skip": list(OF_TOOLS), "augment": None, "cache": None},
}
"""Keys of `data` that runs of earlier releases lack, with the values in configs/data/. Such a run goes
on without them, as it began."""


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping's values by dotted key. An empty mapping counts as a value."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        inner = flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {}
        values |= inner or {f"{prefix}{key}": value}
    return values


def to_yaml(config: Config) -> str:
    """Return the whole config as YAML text."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))


def read_config(folder: Path) -> Config:
    """Return the config of a run. Newer keys have their defaults. Raises `UserError`."""
    return parse_config(*config_text(folder))


def config_text(folder: Path) -> tuple[str, str]:
    """Return the stored config of a run and its path, for messages. Raises `UserError`."""
    path = folder / "config.yaml"
    try:
        return path.read_text(encoding="utf-8"), shown(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{shown(path)} cannot be read: {error}.") from error


def parse_config(text: str, source: str) -> Config:
    """Return the config of a text that `to_yaml` made. Raises `UserError`, which names `source`."""
    if call := re.search(r"\$\{\s*[\w.]+\s*:", text):  # such as ${oc.env:HOME}
        said = f"{source} holds {call[0]}…}}, but a stored config takes plain values only."
        raise UserError(f"{said} Write the value in its place, or delete the line.")
    values = parse_values(text, source)
    try:
        return from_dict({"contiguous": None, **values})
    except UserError as error:
        raise UserError(f"{source} has a mistake. {error}") from None
    except Exception as error:  # values of a wrong type raise many kinds of errors
        raise UserError(f"{source} cannot be read: {one_line(error)[:200]}.") from error


def parse_values(text: str, source: str) -> dict[str, Any]:
    """Return the values of a stored config by key, unchecked. Raises `UserError`."""
    import yaml

    # A few lines with aliases can stand for more than the memory.
    names = {mark: re.findall(rf"[\s:,\[{{][{mark}]([^\s,\]}}]+)", text) for mark in "&*"}
    for name in set(names["&"]).intersection(names["*"]):
        raise UserError(f"{source} repeats '&{name}' as '*{name}'. Write the value in its place.")
    # The loader in C takes a tenth of the time. It must read 3e-3 as a number, as OmegaConf does.
    loader: Any = type("Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {})
    number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
    loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    try:
        values = yaml.load(text, loader)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{source} cannot be read: {one_line(error)[:200]}.") from error
    if not isinstance(values, dict) or not values:
        raise UserError(f"{source} has a mistake. It holds no config.")
    return {str(key): value for key, value in values.items()}


def allowed_by_project() -> list[str]:
    """Return the packages that the project's own config files allow (`allowed_packages`).

    The list in a stored config does not count: somebody else may have written it.
    """
    import yaml

    found: dict[str, None] = {}
    for path in sorted(CONFIGS.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8", errors="replace")
        # A comment may name the key, or the file is broken, which composing reports.
        with contextlib.suppress(yaml.YAMLError, LookupError, TypeError):
            if "allowed_packages" in text:
                found |= dict.fromkeys(map(str, yaml.safe_load(text)["allowed_packages"] or ()))
    return list(found)


def changed_keys(stored: Config, new: Config) -> set[str]:
    """Return the top-level keys in which two configs differ. NaN equals itself.

    Keys in `MOVABLE` do not count, nor does a key that one config lacks if its value is in `_NEWER`.
    """
    pairs = {key: (getattr(stored, key), getattr(new, key)) for key in vars(stored)}
    if None in pairs["contiguous"]:
        del pairs["contiguous"]
    anywhere = dict.fromkeys(MOVABLE)
    pairs["data"] = ({**_NEWER, **stored.data, **anywhere}, {**_NEWER, **new.data, **anywhere})
    return {key for key, (a, b) in pairs.items() if a != b and repr(a) != repr(b)}


def is_shorter(stored: Config, new: Config) -> bool:
    """Return True if a run of `new` ends before a run of `stored`."""
    limits = [(getattr(new, key), getattr(stored, key)) for key in EXTENDING]
    return any(n is not None and (s is None or n < s) for n, s in limits)


def merge_configs(folder: Path, stored: Config, new: Config, overrides: list[str]) -> Config:
    """Return the stored config with overrides that may change. Raises `UserError` for others."""
    given = {override.lstrip("+~").split("=")[0] for override in overrides}
    moved = [k for k in MOVABLE if f"data.{k}" in given or (new.resume == "auto" and k in new.data)]
    named = {re.split("[.@]", key)[0] for key in given - {f"data.{key}" for key in moved}}
    keys = changed_keys(stored, new)
    # Else an experiment may set any key, or `auto` has found a run whose other keys are equal.
    if new.resume != "auto" and named <= vars(stored).keys() | RETIRED.keys():
        keys &= named
    if stored.contiguous is None and new.contiguous is not None:  # an earlier release began it
        keys |= {"contiguous"} & given
    for key in sorted(keys - OPERATIONAL):
        old, now = (f"{key}={typed(getattr(config, key))}" for config in (stored, new))
        if key not in EXTENDING:
            source = key if key in named else "experiment"
            raise UserError(
                f"{key} cannot change in a resumed run: {folder.name} was made with {old}. Start a "
                f"new run, or leave {source} out."
            )
        if is_shorter(stored, dataclasses.replace(stored, **{key: getattr(new, key)})):
            raise UserError(f"{now} is below {old}. A resumed run can only become longer.")
    taken = {key: getattr(new, key) for key in keys}
    taken["allowed_packages"] = new.allowed_packages  # of the project, never of the run
    if moved:
        taken["data"] = {**stored.data, **{key: new.data.get(key) for key in moved}}
    return dataclasses.replace(stored, **taken)


def follow_length(config: Config, stored: Config, overrides: Sequence[str]) -> Config:
    """Return the config of a run that becomes longer, with values such as `${epochs}` following.

    overrides: those that began the run. Raises `UserError` for a value that may not change.
    """
    raised = sorted(changed_keys(stored, config) & EXTENDING)
    if not raised:
        return config
    lengths = ([f"{k}={typed(getattr(c, k))}" for k in raised] for c in (stored, config))
    keys, free = ", ".join(raised), OPERATIONAL | EXTENDING
    try:
        short, long = (compose(*overrides, *length) for length in lengths)
    except UserError:
        short = None
    if short is None or changed_keys(short, stored) - free - {"name"}:
        say(f"The config files have changed. What they computed from {keys} stays as it was.")
        return config
    before, after = (flat(dataclasses.asdict(c)) for c in (short, long))
    for key in [k for k in before if before[k] != after.get(k) and k not in (*raised, "name")]:
        top = key.split(".")[0]
        if top not in free:
            raise UserError(
                f"{keys} cannot be changed: {key}={before[key]} was computed from it. Start a new run."
            )
        if getattr(config, top) == getattr(stored, top) == getattr(short, top):
            config = dataclasses.replace(config, **{top: getattr(long, top)})
    return config
