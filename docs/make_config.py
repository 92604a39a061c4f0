"""Write the page of all config keys, for the docs and for projects, and the JSON schema of the config files.

`python docs/make_config.py` makes them from engine/config/schema.py and the comments of the config files, and adds the
line that names the schema to each config file. A test keeps them current.
"""

import dataclasses
import importlib
import importlib.util
import json
import math
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

DOCS = Path(__file__).parent
TEMPLATE = DOCS.parent / "template"
ENGINE = TEMPLATE / "{{ package_name }}/engine"
HEAD = """# Config keys

For people who look up a key. Set a key in `configs/train.yaml`, in an experiment, or as `KEY=VALUE` on the command
line. `python train.py --help KEY` says the same about one key.

The config groups `data`, `model`, `loss`, `mix`, `optimizer`, `scheduler` and `logger` have a folder each in
`configs/`. Each file there explains its own keys. A relative path starts at the project's root, whatever the
working directory is. This page is made from `engine/config/schema.py`.
"""
RESUMED = """## In a resumed run

A resumed run may change these keys, because the result does not depend on them: {change}.

It may raise these keys, to train for longer: {grow}. All other keys stay as they are.
"""
RETIRED = """## Retired keys

Old configs may still hold these keys. They are ignored with a warning.

| key | ignored since | instead |
|---|---|---|"""


def module(name: str) -> ModuleType:
    """A module of the engine, which lies in a folder that is rendered later."""
    spec = importlib.util.spec_from_file_location(
        "engine_of_the_template", ENGINE / "__init__.py", submodule_search_locations=[str(ENGINE)]
    )
    assert spec is not None
    sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    return importlib.import_module(f"{spec.name}.{name}")


def shown(value: object) -> str:
    return str(value).replace("None", "null").replace("True", "true").replace("False", "false")


def row(name: str, field: Any) -> str:
    rule = field.metadata["rule"]
    default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    kind = shown(field.type).replace("|", "\\|")
    return f"| `{name}` | {kind} | `{shown(default)}` | {rule.limits()} | {rule.meaning} |"


def page() -> str:
    schema, retired = module("config.schema"), module("config.check").RETIRED
    fields = {}
    for name, field in schema.FIELDS.items():
        if name in schema.SECTIONS:
            fields |= {f"{name}.{f.name}": f for f in dataclasses.fields(schema.SECTIONS[name])}
        elif name not in schema.GROUPS:
            fields[name] = field
    lines = [HEAD]
    for name, field in fields.items():
        if heading := field.metadata["rule"].heading:
            lines += [f"\n## {heading}\n", "| key | type | default | allowed | meaning |", "|---|---|---|---|---|"]
        lines.append(row(name, field))
    marked = {"change": schema.OPERATIONAL, "grow": schema.EXTENDING}
    in_order = {mark: ", ".join(f"`{k}`" for k in schema.FIELDS if k in keys) for mark, keys in marked.items()}
    lines += ["", RESUMED.format(**in_order), RETIRED]
    lines += [f"| `{name}` | {one.version} | {one.sentence} |" for name, one in retired.items()]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


TYPES = {"int": "integer", "float": "number", "bool": "boolean", "str": "string", "None": "null"}
TYPES |= {"list": "array", "dict": "object"}
COMPUTED = {"type": "string", "pattern": r"\$\{"}
"""A value that is computed from other keys, such as ${epochs}."""


def key_schema(rule: Any, default: Any = None) -> dict[str, Any]:
    """Return the JSON schema of a key from its rule."""
    kinds = re.sub(r"\[.*?\]", "", rule.kind).split(" | ")
    one: dict[str, Any] = {"type": [TYPES[kind] for kind in kinds if kind in TYPES]}
    if rule.one_of:  # YAML reads a bare true as a bool
        bools = [value == "true" for value in rule.one_of if value in ("true", "false")]
        one = {"enum": [*rule.one_of, *bools]}
    limits = {"minimum": rule.at_least, "exclusiveMinimum": rule.above}
    limits |= {"maximum": rule.at_most, "exclusiveMaximum": rule.below}
    one |= {word: bound for word, bound in limits.items() if math.isfinite(bound)}
    return {"description": rule.meaning, "default": default, "anyOf": [one, COMPUTED]}


def section(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a section that holds these keys and no others."""
    return {"type": "object", "additionalProperties": False, "properties": fields}


def fields_of(kind: Any, rules: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the schema of each key of a dataclass."""
    defaults = dataclasses.asdict(kind())
    return {
        name: key_schema(rules[f"{prefix}{name}"], defaults[name]) for name in defaults if f"{prefix}{name}" in rules
    }


def group_schema(group: str, own_keys: dict[str, str]) -> dict[str, Any]:
    """Return the schema of a group: the keys of its files with their comments, and any other key."""
    keys: dict[str, Any] = {"_target_": {"type": "string", "description": "The class. A leading dot is the package."}}
    meanings: dict[str, dict[str, None]] = {}
    for path in sorted(TEMPLATE.glob(f"**/configs/{group}/*.yaml")):
        for key, meaning in re.findall(r"(?m)^(\w+):(?: .*?)?(?: # (.+))?$", path.read_text(encoding="utf-8")):
            meanings.setdefault(key, {})[f"{path.stem}: {meaning}" if meaning else ""] = None
    keys |= {key: {"description": "; ".join(filter(None, found))} for key, found in meanings.items() if key not in keys}
    keys |= {key: {"description": meaning} for key, meaning in own_keys.items()}
    return {"type": "object", "properties": keys}


def json_schema() -> str:
    """Return the JSON schema of the config files: of whole configs, and of each group in `definitions`."""
    schema, retired = module("config.schema"), module("config.check").RETIRED
    top = fields_of(schema.Config, schema.RULES)
    for name, kind in schema.SECTIONS.items():
        top[name] = section(fields_of(kind, schema.RULES, f"{name}."))
        top[name]["description"] = schema.FIELDS[name].metadata["rule"].meaning
    for name, one in retired.items():
        place, _, key = name.rpartition(".")
        holder = top[place]["properties"] if place else top
        holder[key] = {"description": f"Ignored since {one.version}. {one.sentence}", "deprecated": True}
    groups = {name: group_schema(name, schema.OWN_KEYS.get(name, {})) for name in schema.GROUPS}
    top |= {
        name: {"description": schema.RULES[name].meaning, "anyOf": [{"$ref": f"#/definitions/{name}"}, COMPUTED]}
        for name in groups
    }
    own = {
        "defaults": {"type": "array", "description": "The chosen files, read in this order."},
        "hydra": {"type": "object"},
    }
    whole = {"$schema": "http://json-schema.org/draft-07/schema#", **section(own | top), "definitions": groups}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def with_schema(path: Path) -> str:
    """Return the text of a config file with the line that names its schema to editors."""
    text = path.read_text(encoding="utf-8")
    *_, group, _ = path.parts
    place = f"../schema.json#/definitions/{group}" if group in module("config.schema").GROUPS else "../schema.json"
    line = f"# yaml-language-server: $schema={'schema.json' if group == 'configs' else place}\n"
    package = "# @package _global_\n"  # Hydra reads it in the first line only
    start = package if text.startswith(package) else ""
    return text if line in text else f"{start}{line}{text.removeprefix(start)}"


def files() -> dict[Path, str]:
    """Return the files that are made here, and their right content."""
    configs = TEMPLATE / "configs"
    found = {DOCS / "config.md": page(), configs / "README.md": page(), configs / "schema.json": json_schema()}
    return found | {path: with_schema(path) for path in sorted(TEMPLATE.glob("**/configs/**/*.yaml"))}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
