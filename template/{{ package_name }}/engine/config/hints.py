"""Sentences for unknown keys, flags and choices, and for Hydra's errors. Without torch."""

import difflib
import functools
import importlib.util
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from ..errors import UserError, nearest
from ..paths import CONFIGS
from ..text import quoted
from .schema import FIELDS, GROUPS, RULES, SECTIONS

_OF_TORCH = {  # an example, and the files with others, where any class of torch will do
    "optimizer": ("torch.optim.RMSprop", "optim/*.py"),
    "scheduler": ("torch.optim.lr_scheduler.CosineAnnealingLR", "optim/lr_scheduler.py"),
    "loss": ("torch.nn.MSELoss", "nn/modules/loss.py"),
}
_KINDS = {"Float": "a number", "Integer": "a whole number"}


def hint(key: str, known: Collection[str], target: str = "") -> str:
    """Return a sentence after a space that leads from an unknown key to a right one, or "".

    known: the keys of the top level, or the arguments that the `target` of a group's section takes.
    """
    place, _, name = key.rpartition(".")
    group = key.partition(".")[0]
    meant = _meant(name)
    owners = _choices_with(f"{name}:")
    beside = [k.removeprefix(f"{place}.") for k in known if k.startswith(f"{place}.")]
    near = difflib.get_close_matches(name, known if group in GROUPS else beside, 1, cutoff=0.65)
    found = [f"{place}.{n}" for n in near]
    if group in GROUPS:
        if own := [f"{group}={choice}" for g, choice in owners if g == place][:3]:
            is_bare = not _choices_with(f"_target_: {target}")
            more = f" {group}={target} starts without such keys." if is_bare else ""
            return f" It is a key of {', '.join(own)}.{more}"
        found += [meant] if meant in FIELDS.keys() - {*GROUPS} else []
    elif meant.endswith("."):
        return f" {meant}"
    elif meant in RULES:
        found = [meant]
    elif not (found := [*(f"{g}.{name}" for g, _ in owners), *found]):
        if group == "vars":
            return " Add it below vars in configs/train.yaml."
        return "" if beside else nearest(key, known)
    return f" Did you mean '{found[0]}'?" if found else ""


@functools.cache
def words(file: str) -> dict[str, str]:
    """Return the meaning of each word in a YAML file of this folder."""
    import yaml

    table = yaml.safe_load(Path(__file__).with_name(file).read_text(encoding="utf-8"))
    return {word: meaning for meaning, line in table.items() for word in line.split()}


def _meant(word: str) -> str:
    """Return the key or the sentence that a word of another tool stands for, or the word."""
    name = word.lower().replace("-", "_")
    return name if name in RULES else words("words.yaml").get(name, name)


def _choices_with(start: str) -> list[tuple[str, str]]:
    """Return the (group, choice) of each file in configs/ that has a line with this start."""
    line = re.compile(rf"^{re.escape(start)}", re.MULTILINE)
    return [(g, choice) for g in GROUPS for choice, text in choices(g).items() if line.search(text)]


def refuse_other_spellings(arguments: Sequence[str]) -> None:
    """Refuse `--epochs 2`, `-lr=0.1` and `epochs 2`, and say how to write them. Raises `UserError`."""
    for before, word, after in zip(["", *arguments], arguments, [*arguments[1:], ""], strict=False):
        is_flag, (name, equals, value) = word.startswith("-"), word.lstrip("-").partition("=")
        if not is_flag and (equals or before.startswith("-")):  # an override, or a flag's value
            continue
        meant = _meant(name)
        is_key = meant in RULES or meant.split(".")[0] in (*GROUPS, "experiment", "debug")
        if not is_key and not meant.endswith("."):
            continue
        if not equals:
            is_switch = meant in FIELDS and FIELDS[meant].type == "bool"
            is_value = after != "" and after[0] != "-" and "=" not in after
            value = after if is_value else "true" if is_switch else "VALUE"
        said = f"Unknown flag '{word}'" if is_flag else f"'{word}' is not an override"
        raise UserError(f"{said}. {f'Write {meant}={value}.' if is_key else meant}")


def choices(group: str) -> dict[str, str]:
    """Return the text of each file in configs/`group`, by its name without ending."""
    paths = {p.relative_to(CONFIGS / group): p for p in sorted((CONFIGS / group).rglob("*.yaml"))}
    return {k.with_suffix("").as_posix(): p.read_text("utf-8", "replace") for k, p in paths.items()}


def unknown_choice(group: str, choice: str) -> str:
    """Return the message for a choice that has no file in configs/`group`."""
    if group in ("hydra/sweeper", "hydra/launcher"):
        kind = group.removeprefix("hydra/")
        plugin = f"hydra-{choice.split('_')[0]}-{kind}"  # one for submitit_local and submitit_slurm
        return f"The {kind} '{choice}' needs the package '{plugin}'. Install it: uv add {plugin}"
    known = choices(group)
    if known and "." in choice:  # in a sweep, in a config file or after +
        file = f"configs/{group}/NAME.yaml with the line _target_: {choice}"
        return f"'{choice}' names a class. Here, name a file that you write: {file}."
    if not known:
        return f"configs/{group}/{choice}.yaml does not exist."
    within = [c for c in known if len(c) > 2 and c.replace("_", "") in choice.lower()]
    near = f" Did you mean '{max(within, key=len)}'?" if within else nearest(choice, known)
    sentence = f"There is no {group} '{choice}'.{near}"
    for wrapper in ("torchvision", "timm"):
        if group == "model" and wrapper in known:
            sentence += f" Any model of {wrapper}: model={wrapper} model.name={choice}."
    return f"{sentence}{of_torch(group, choice)} Choices: {', '.join(known)}."


def of_torch(group: str, word: str) -> str:
    """Return a sentence after a space that leads to a class of torch, such as from `rmsprop`; or ""."""
    if group not in _OF_TORCH:
        return ""
    (example, files), other = _OF_TORCH[group], ""
    torch = importlib.util.find_spec("torch")  # imports nothing
    folders = torch.submodule_search_locations if torch else None
    texts = (p.read_text(encoding="utf-8") for f in folders or () for p in Path(f).glob(files))
    name = rf"(?mi)^class ({re.escape(word.replace('_', ''))}(?:Loss|LR)?)\b"
    if found := next(filter(None, (re.search(name, text) for text in texts)), None):
        example = f"{example.rpartition('.')[0]}.{found[1]}"
    elif word[:1].isupper():
        other = f" If a package has it, write {group}=PACKAGE.{word}."
    return f"{other} Any {group} of torch by its class: {group}={example}."


def first_line(error: BaseException) -> str:
    """Return the first line of an exception as a sentence, with its config key."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith("raised while composing config:")]
    sentence = (lines[0] if lines else type(error).__name__).rstrip(".") + "."
    key = next((line.removeprefix("full_key: ") for line in lines if "full_key: " in line), "")
    if wrong := re.match(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", sentence):
        return f"{key}={wrong[1]} is not {_KINDS.get(wrong[2], wrong[2])}."
    return f"{key}: {sentence}" if key else sentence


def explain(error: BaseException, arguments: Sequence[str]) -> str:
    """Return a sentence for an exception that was raised while Hydra composed `arguments`."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"The package '{error.name}' is not installed. Use `uv run` or `pip install -e .`."
    if getattr(error, "errno", None):  # such as a word that is longer than any file name
        why = getattr(error, "strerror", None)
        return f"An override names a file that cannot be read: {why}. Write KEY=VALUE."
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    text = "\n".join(str(e) for e in chain)

    for e in chain:
        if mark := getattr(e, "problem_mark", None):  # of PyYAML
            problem = getattr(e, "problem", "")
            return f"{mark.name}, line {mark.line + 1}, cannot be read as YAML: {problem}."
    if "--hydra-help" in arguments:
        return "--hydra-help takes no overrides. Leave the others out."
    if "hydra" in (a.lstrip("+~").partition("=")[0] for a in arguments):
        return "'hydra' is Hydra's own section. Set a key in it, such as hydra.sweep.dir=PATH."
    nameless = next((a for a in arguments if re.match(r"[~+]*=", a)), None)
    unparsable = getattr(error, "override", nameless)  # of OverrideParseException
    if unparsable is not None:
        return _unparsable(unparsable)
    if choice := re.search(r"Could not find '([\w-]+(?:/[\w-]+)*)/([^'/]+)'", text):
        return unknown_choice(*choice.groups())
    if re.search("Cannot find primary config|Primary config directory not found", text):
        return f"{CONFIGS / 'train.yaml'} does not exist. Restore it, for example with git."
    if unknown := re.search(r"In '([^']+)': Could not load '([^']+)'", text):
        return f"configs/{unknown[2]}.yaml does not exist. configs/{unknown[1]}.yaml names it."
    if re.search("could not be converted|is not a subclass|is not Optional|not assign", text):
        return first_line(next(e for e in reversed(chain) if "full_key" in str(e) or e is error))
    if several := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"'{several[1]}' has several values. Add -m for one run each, or quote the value."
    if other := re.search(r"value of '([^']+)' is .+ and not", text):
        return f"~{other[1]}=VALUE is not possible: it has another value. Set {other[1]}=VALUE."
    section = re.search(r"Error merging override ([\w.]+)=", text)
    if not section and "group override must be a string" in text:
        wrong = [a for a in arguments if (CONFIGS / re.split("[@=]", a.lstrip("+@"))[0]).is_dir()]
        said = " or ".join(f"'{argument}'" for argument in wrong or arguments)
        return f"{said} names no file in configs/. For none, leave it out."
    named = r"(?:Could not override|Key|Could not delete from config\.) '([\w./@-]+)'"
    match = section or re.search(named, text)
    if match is None:
        return first_line(error)
    key = match[1]
    if key in FIELDS.keys() - {*GROUPS, *SECTIONS}:
        example = f" Write {key}=[VALUE]." if FIELDS[key].type.startswith("list") else ""
        return f"'{key}' does not take this value. Its type is {FIELDS[key].type}.{example}"
    if section or key in FIELDS:
        return f"'{key}' is a section of the config. Set a key in it: {key}.KEY=VALUE."
    if key.split(".")[0] in GROUPS:
        return f"Unknown config key '{key}'.{hint(key, ())}"
    known = [*RULES, *(path.name for path in CONFIGS.glob("*/"))]
    beside = next((e for e in chain if getattr(e, "parent_node", None)), None)
    if place := str(getattr(beside, "full_key", "")).rpartition(".")[0]:
        known += [f"{place}.{name}" for name in getattr(beside, "parent_node", ())]
    return f"Unknown config key '{key}'.{hint(key, known)}"


def _unparsable(word: str) -> str:
    key, _, value = word.partition("=")
    if not key.strip("~+") or not value:
        return f"'{word}' is not an override. Write KEY=VALUE, such as lr=0.001."
    if value.count("${") > value.count("}"):
        return f"'{word}' begins an interpolation that does not end. Write ${{KEY}}."
    typed = f'"{key}={quoted(value)}"'
    return f"Hydra cannot read '{word}'. Quote the value for Hydra and the shell: {typed}."
