"""How the code is laid out: the tests themselves, and the rooms of the engine."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.template import ROOT

TESTS = ROOT / "tests"
MODULES = sorted(TESTS.glob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module)


@pytest.mark.parametrize("path", [*MODULES, *sorted(TESTS.glob("helpers/*.py"))], ids=lambda path: path.stem)
def test_no_file_imports_from_a_test_module(path):
    """What two of them need lies in tests/helpers/."""
    assert {name.split(".")[0] for name in imported(path)}.isdisjoint(module.stem for module in MODULES)
