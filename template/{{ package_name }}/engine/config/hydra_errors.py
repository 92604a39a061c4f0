"""Hydra's errors as one or two sentences: what is wrong, the value, what to do."""

import re
from collections.abc import Sequence

from ..errors import UserError
from ..paths import CONFIGS
from .hints import hint, unknown_choice
from .schema import FIELDS, GROUPS, RULES, SECTIONS


def first_line(error: BaseException) -> str:
    """Return the first line of an exception as a sentence, with its config key."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith("raised while composing config:")]
    sentence = (lines[0] if lines else type(error).__name__).rstrip(".") + "."
    key = next((line.removeprefix("full_key: ") for line in lines if "full_key: " in line), "")
    return f"{key}: {sentence}" if key else sentence


def explain(error: BaseException, arguments: Sequence[str]) -> str:
    """Return a sentence for an exception that was raised while Hydra composed `arguments`."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"The package '{error.name}' is not installed. Use `uv run` or `pip install -e .`."
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
    if re.search("could not be converted|is not a subclass|is not Optional|not assign", text):
        return first_line(next(e for e in reversed(chain) if "full_key" in str(e) or e is error))
    if several := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"'{several[1]}' has several values. Add -m for one run each, or quote the value."
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
        return f"'{key}' does not take this value. Its type is {FIELDS[key].type}."
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
    quoted = "\"{}='{}'\"".format(key, value.replace("'", "\\'"))
    return f"Hydra cannot read '{word}'. Quote the value for Hydra and the shell: {quoted}."
