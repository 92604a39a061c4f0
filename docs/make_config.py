"""Writes docs/config.md from the schema: `python docs/make_config.py`. A test keeps it current."""

import dataclasses
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

DOCS = Path(__file__).parent
ENGINE = DOCS.parent / "template/{{ package_name }}/engine"
HEAD = """# Config keys

For people who look up a key. Set a key in `configs/train.yaml`, in an experiment, or as `KEY=VALUE` on the command
line.

The config groups `data`, `model`, `loss`, `mix`, `optimizer`, `scheduler` and `logger` have a folder each in
`configs/`. Each file there explains its own keys. This page is made from `engine/config/schema.py`.
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


if __name__ == "__main__":
    (DOCS / "config.md").write_text(page())
