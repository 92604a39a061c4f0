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


def docstrings(tree: ast.Module) -> set[ast.AST]:
    """The nodes of a module that are its documentation."""
    documented = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    starts = [node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and node.body]
    return {node.value for node in starts if isinstance(node, ast.Expr)}


@pytest.mark.parametrize("path", [*MODULES, *sorted(TESTS.glob("helpers/*.py"))], ids=lambda path: path.stem)
def test_long_texts_lie_in_files(path):
    """Code in a string is neither linted nor coloured. From 16 lines on it lies in tests/snippets/."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            lines = node.value.strip().count("\n") + 1
            assert lines <= 15, f"line {node.lineno}: a string of {lines} lines"
