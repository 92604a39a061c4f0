"""Writes docs/config.md from the schema: `python docs/make_config.py`. A test keeps it current."""

import ast
from pathlib import Path

DOCS = Path(__file__).parent
SCHEMA = DOCS.parent / "template/{{ package_name }}/engine/config/schema.py"
HEAD = """# Every config key

Set a key in `configs/train.yaml`, in an experiment, or as `KEY=VALUE` on the command line. The groups
(`data`, `model`, `loss`, `mix`, `optimizer`, `scheduler`, `logger`) hold what their YAML files in
`configs/` say; each of these files explains its own keys. This page is made from the schema.
"""


def fields(kind: ast.ClassDef) -> list[tuple[str, str, str, str]]:
    """(name, type, default, meaning) of each documented field."""
    rows = []
    for field, text in zip(kind.body, kind.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            default = ast.unparse(field.value) if field.value else ""
            default = {"field(default_factory=list)": "[]"}.get(default, default).replace("None", "null")
            default = default.replace("True", "true").replace("False", "false").replace("'", "")
            kind_ = ast.unparse(field.annotation).replace("None", "null").replace("|", "\\|")
            meaning = " ".join(str(text.value.value).split())
            rows.append((ast.unparse(field.target), kind_, default, meaning))
    return rows


def page() -> str:
    tree = ast.parse(SCHEMA.read_text())
    kinds = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    main = kinds.pop("Config")
    sections = {
        ast.unparse(field.annotation): ast.unparse(field.target)
        for field in main.body
        if isinstance(field, ast.AnnAssign) and ast.unparse(field.annotation) in kinds
    }
    lines = [HEAD, "| key | type | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{n}` | {t} | `{d}` | {m} |" for n, t, d, m in fields(main)]
    for kind, prefix in sections.items():
        lines += [f"| `{prefix}.{n}` | {t} | `{d}` | {m} |" for n, t, d, m in fields(kinds[kind])]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (DOCS / "config.md").write_text(page())
