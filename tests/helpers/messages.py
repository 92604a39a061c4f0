"""The sentences that the product says to a user, read from its code. A place for a value is `…`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from helpers.template import ROOT

HELP = ("key", "verb", "add_argument", "ArgumentParser", "info")
"""Calls whose texts explain and report nothing wrong."""
SAYS = re.compile(r"(Error|Failed|Refused|Stopped|warning|error|say)$")
"""Calls that tell a text to the user, whether it ends with a full stop or not."""
ENDS = re.compile(r"[a-z…)'\d}][.?!](…| |$)")
"""The end of a sentence."""
NOT_SAID = ("stories.py",)
"""Files with sentences that are data."""


def spelled(node: ast.AST) -> str:
    """Return the text of an expression. What is computed is `…`."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else "…"
    if isinstance(node, ast.JoinedStr):
        return "".join(spelled(value) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return spelled(node.left) + spelled(node.right)
    return "…"


def usual(text: str) -> str:
    """Return a text with single spaces and single `…`, also for the `{}` of `str.format`."""
    return re.sub(r"(… ?)+…", "…", " ".join(text.replace("{}", "…").replace("…}", "…").split()))


def documentation(tree: ast.AST) -> set[ast.AST]:
    """Return the strings that are statements: docstrings."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def texts(node: ast.AST, skipped: set[ast.AST], is_told: bool = False) -> Iterator[str]:
    """Yield the largest strings below a node that tell something to the user."""
    if node in skipped:
        return
    is_text = isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    is_sum = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and re.search("[a-z] [a-z]", spelled(node))
    if is_text or is_sum:
        text = usual(spelled(node))
        if len(re.findall(r"[A-Za-z]{2,}", text)) >= (2 if is_told else 4) and (is_told or ENDS.search(text)):
            yield text
        return
    name = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
    tells = SAYS.search(name) or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("what", "text"))
    for child in ast.iter_child_nodes(node):
        if name not in HELP:
            yield from texts(child, skipped, bool(tells))


def sources() -> Iterator[Path]:
    """Yield the product's own files."""
    for folder in (ROOT / "template", ROOT / "ostinato"):
        paths = (path for path in sorted(folder.rglob("*.py")) if path.name not in NOT_SAID)
        yield from (path for path in paths if "tests" not in path.relative_to(ROOT).parts)


def messages() -> dict[str, Path]:
    """Return each sentence with the file that says it."""
    found = {}
    for path in sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for text in texts(tree, documentation(tree)):
            found[text] = path
    return found
