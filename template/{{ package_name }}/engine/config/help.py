"""`python train.py --help`: all choices and keys. `--help KEY`: what is known about one of them."""

import operator
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..paths import CONFIGS
from ..text import align, typed
from .check import RETIRED
from .compose import composed
from .hints import choices, hint
from .schema import GROUPS, OWN_KEYS, RULES, Config, Rule
from .stored import flat

_ABOUT = re.compile(r"(?m)^# (?!@|yaml-)(.+)$")  # what a config file says about itself
_BESIDE = re.compile(r"(?m)^ *(\w+):(?: .*)? # (.+)$")  # what it says beside a key


def text(arguments: Sequence[str]) -> str:
    """Return the help on each word without a value, else on all keys. Raises `UserError`."""
    from omegaconf import OmegaConf

    words = [a for a in arguments if a[:1] != "-"]
    asked = [word for word in words if "=" not in word and word[:1] != "~"]
    config = composed([word for word in words if word not in asked])
    values = flat(OmegaConf.to_container(config, resolve=False))  # type: ignore[arg-type]
    rules = _rules(config.hydra.runtime.choices)
    if asked:
        return "\n\n".join(_about(word.lstrip("+"), values, rules) for word in asked) + "\n"
    lines = []
    for key, rule in RULES.items():
        lines += [f"\n{rule.heading}"] if rule.heading else []
        lines += _keys(key, values, rules)
    folders = sorted(path.name for path in CONFIGS.iterdir() if path.is_dir())
    files = "\n".join(f"{folder}: {', '.join(choices(folder))}" for folder in folders)
    return _read("usage.txt").format(choices=files, keys="\n".join(lines))


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _rules(chosen: Mapping[str, Any]) -> dict[str, Rule]:
    """Return the rule of each key. That of a group's key is the comment beside it in its file."""
    rules: dict[str, Rule] = {}
    for group in GROUPS:
        files, names = choices(group), re.findall(r"[\w/]+", str(chosen.get(group)))  # or several
        found = dict(pair for name in names for pair in _BESIDE.findall(files.get(name, "")))
        rules |= {f"{group}.{k}": Rule(m) for k, m in (found | OWN_KEYS.get(group, {})).items()}
    return rules | RULES


def _keys(key: str, values: Mapping[str, Any], rules: Mapping[str, Rule]) -> list[str]:
    """Return a line for the key, or for each key below it: its value, meaning and limits."""
    lines, own = [], [f"{key}.{name}" for name in OWN_KEYS.get(key, ())]
    for k in dict.fromkeys([*(k for k in values if k.startswith(f"{key}.")), *own]) or [key]:
        rule = rules.get(k) or rules.get(f"{k.partition('.')[0]}.{k.rpartition('.')[2]}", Rule())
        limits = f" ({rule.limits()})" if rule.limits() else ""
        lines.append(f"  {f'{k}={typed(values.get(k))}':<32}  {rule.meaning}{limits}".rstrip())
    return lines


def _about(key: str, values: Mapping[str, Any], rules: Mapping[str, Rule]) -> str:
    """Return what is known about a key, a section of keys, or a folder of choices."""
    if key in RETIRED:
        return f"{key} is ignored since release {RETIRED[key].version}. {RETIRED[key].sentence}"
    files, group = choices(key) if key.isidentifier() else {}, key.partition(".")[0]
    said = {choice: (_ABOUT.findall(content) or [""])[0] for choice, content in files.items()}
    lines = [f"  {f'{key}={choice}':<32}  {said[choice]}".rstrip() for choice in files]
    if key in values or key in rules or any(k.startswith(f"{key}.") for k in values):
        lines += [""] * bool(files) + _keys(key, values, rules)
    if not lines:
        beside = [k.partition(".")[2] for k in values if k.startswith(f"{group}.")]
        near = hint(key, beside if group in GROUPS else RULES)
        raise UserError(f"The help has no key '{key}'.{near}")
    if key in values and (key in RULES or values[key] not in (None, "???")):
        given = re.search(rf"(?m)^\W?{re.escape(key)}[=.].*$", _read("examples.txt"))
        rows = [["type", rules.get(key, Rule()).kind or type(values[key]).__name__]]
        rows += [["default", typed(operator.attrgetter(key)(Config()))]] if key in RULES else []
        example = given[0] if given else f"{key}={typed(values[key])}"
        rows.append(["example", f"python train.py {example}"])
        lines += ["", *(f"  {line}" for line in align(rows, left=2))]
    return "\n".join(lines)
