"""From the command line to a checked config, composed by Hydra. Without torch."""

import re
from collections.abc import Collection, Iterable
from typing import Any

from ..errors import UserError
from ..paths import CONFIGS
from ..text import say
from .check import RETIRED, from_dict, usual_mode
from .hints import choices, explain, first_line, refuse_other_spellings
from .hydra_internals import check_flags
from .schema import FIELDS, GROUPS, RULES, SECTIONS, Config, Rule

DIRECTIONS = {"max": "maximize", "min": "minimize"}  # Hydra's words for each `monitor_mode`

_HYDRA = {
    "run": {"dir": "."},
    "sweep": {"dir": "runs/${name}/.sweeps/${now:%Y-%m-%d_%H-%M-%S}", "subdir": "."},
    "job": {"name": "sweep"},  # on a cluster, too
    "output_subdir": None,
    "callbacks": {"check": {"_target_": f"{__package__}.sweep.CheckEveryJob"}},
}
_DEFAULTS = [
    "_self_",
    {"sweep": None},  # here, so that projects with an older train.yaml have it too
    {"override hydra/job_logging": "none"},
    {"override hydra/hydra_logging": "none"},
]


def compose(*overrides: str) -> Config:
    """Return the checked config of `python train.py OVERRIDES`. Raises `UserError`."""
    return to_config(composed(accept(overrides)))


_FLAGS = {"-q": "log.level=warning", "-v": "log.level=debug"}


def read_flags(arguments: list[str]) -> list[str]:
    """Return the command line as Hydra can read it. Raises `UserError` for a wrong flag."""
    is_help = bool({"--help", "-h"} & set(arguments))  # its words are keys without a value
    if not is_help:
        refuse_other_spellings(arguments)
    levels = {a for a in arguments if a in _FLAGS or a.lstrip("+").startswith("log.level=")}
    if len(levels) > 1 and levels & _FLAGS.keys():
        raise UserError(f"{' and '.join(sorted(levels))} contradict each other. Give one of them.")
    # Hydra takes all overrides in one row only: `lr=0.1 -m epochs=2` would be two rows.
    first = [a for a in arguments if a in ("-m", "--multirun") or (is_help and a[:1] == "-")]
    in_order = first + [a for a in arguments if a not in first]
    rest = [a for a in in_order if a not in _FLAGS]
    place = next((i for i, a in enumerate(rest) if "=" in a and a[0] != "-"), len(rest))
    rest[place:place] = [_FLAGS[a] for a in levels & _FLAGS.keys()]
    if any(argument.startswith("-") for argument in rest):
        check_flags(rest)
    values: dict[str, str] = {}
    for override in (accepted := accept(rest)):
        key, is_set, value = override.lstrip("+").partition("=")
        if is_set and override[0] not in "-~":
            if (before := values.setdefault(key, value)) != value:
                say(f"{key} is given twice. {key}={value} counts, and {key}={before} does not.")
            values[key] = value
    return accepted


_EMPTY = {"logger": "none", "mix": "none", "scheduler": "constant"}  # the choices for none


def accept(arguments: Iterable[str]) -> list[str]:
    """Return overrides as Hydra takes them.

    A retired key begins with `++`, and `debug` with `+`. `logger=null` becomes the choice for none. A class in place of a
    choice, as in `scheduler=.schedules.Sawtooth`, becomes the `_target_` of an empty section.
    """
    accepted: list[str] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key.lstrip("+") in RETIRED:
            argument = f"++{argument.lstrip('+')}"
        elif key.lstrip("+") == "debug":
            # No train.yaml lists it. Hydra reads a bare nan as a number.
            argument = re.sub(r"(?<!')\bnan\b", "'nan'", f"+{argument.lstrip('+')}")
        elif key in GROUPS and value not in choices(key):
            if value in ("null", "none"):
                argument = f"{key}={_EMPTY.get(key, value)}"
            elif re.fullmatch(r"[\w.]*\.[^\W\d]\w*", value):
                is_wrapped = value.startswith("torch.") and "torch" in choices(key)
                accepted += [f"{key}={'torch' if is_wrapped else 'named'}"] if choices(key) else []
                argument = f"{key}._target_={value}"
        accepted.append(_as_typed(argument))
    return accepted


_NUMBER = re.compile(r"(?i)[+-]?[\d._]*\d[\d._]*(e[+-]?[\d_]+)?|[+-]?(inf|nan)|true|false")


def _as_typed(argument: str) -> str:
    """Return an override with quotes where a key holds text and Hydra would see a number: it would
    write 2024_01 as 202401. Raises `UserError` for a number as a switch: it would take 7 for true.
    """
    key, _, value = argument.partition("=")
    rule, parts = RULES.get(key.lstrip("+"), Rule()), value.split(",")  # parts: of a sweep
    numbers = [part for part in parts if _NUMBER.fullmatch(part)]
    if rule.kind == "bool" and {n.lower() for n in numbers} - {"0", "1", "true", "false"}:
        raise UserError(f"{argument} is not possible. Write true or false.")
    if rule.one_of or rule.kind[:3] != "str" or all(n.isdecimal() for n in numbers):
        return argument
    return f"{key}=" + ",".join(f"'{p}'" if p in numbers else p for p in parts)


def composed(overrides: list[str]) -> Any:
    """Return the DictConfig of `overrides` and Hydra's settings, unchecked. Raises `UserError`."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    register(overrides)
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        try:
            return hydra.compose("train", overrides, return_hydra_config=True)
        except Exception as error:
            raise UserError(explain(error, overrides)) from error


def single_run(arguments: list[str]) -> Any:
    """Return a run's DictConfig, or None if Hydra's own main must compose. Raises `UserError`."""
    from hydra.core.hydra_config import HydraConfig

    if any(argument.startswith("-") or "hydra" in argument for argument in arguments):
        return None
    config = composed(arguments)
    if config.hydra.mode is not None:
        return None
    HydraConfig.instance().set_config(config)  # for `${hydra:…}` in the config
    return config


def register(overrides: Collection[str]) -> None:
    """Make known to Hydra: the schema, for `defaults: [schema]`, and the resolver of configs/sweep/."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    node = OmegaConf.structured(Config)
    # Config files may hold retired keys: from_dict decides. A group's target decides about its keys.
    for part in (node, *(node[name] for name in (*SECTIONS, *GROUPS))):
        OmegaConf.set_struct(part, False)
    node.hydra, node.defaults = _HYDRA, _DEFAULTS
    ConfigStore.instance().store(name="schema", node=node)
    for group in GROUPS:  # only for a class: globs and the shell's completion list these names
        if f"{group}=named" in overrides:
            ConfigStore.instance().store(group=group, name="named", node={"_target_": "???"})
    OmegaConf.register_new_resolver("direction", _direction, replace=True)


def _direction(mode: str, *, _root_: Any) -> str | None:
    """Return Hydra's word for the config's `monitor_mode`; None if nothing tells what `auto` is."""
    resolved = usual_mode(_root_.monitor, _root_.loss) if mode == "auto" else mode
    return DIRECTIONS.get(str(resolved))


def to_config(composed: Any) -> Config:
    """Return the checked plain `Config` of a composed DictConfig. Raises `UserError`."""
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    own = OmegaConf.masked_copy(composed, [k for k in composed if k not in ("hydra", "defaults")])
    try:
        values: Any = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise UserError(f"{key} has no value yet. Write {key}=VALUE.") from None
    except OmegaConfBaseException as error:
        raise UserError(first_line(error)) from None
    for key in FIELDS:
        if key not in values:
            raise UserError(f"The config key '{key}' is missing. Set it, or restore train.yaml.")
    return from_dict(values)
