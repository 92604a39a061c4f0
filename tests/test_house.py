"""How the code is laid out: the tests themselves, and the rooms of the engine."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from helpers.template import POINTS, ROOT

TESTS = ROOT / "tests"
MODULES = sorted([*TESTS.rglob("test_*.py"), *TESTS.rglob("conftest.py")])
FILES = {str(path.relative_to(TESTS)): path for path in [*MODULES, *sorted(TESTS.glob("helpers/*.py"))]}


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module)


@pytest.mark.parametrize(
    "path", [*MODULES, *sorted(TESTS.glob("helpers/*.py"))], ids=lambda path: str(path.relative_to(TESTS))
)
def test_no_file_imports_from_a_test_module(path):
    """What two of them need lies in tests/helpers/."""
    assert {name.split(".")[0] for name in imported(path)}.isdisjoint(module.stem for module in MODULES)


def test_no_two_test_modules_have_one_name():
    """pytest imports them by their names, without their folders."""
    names = [path.stem for path in MODULES if path.stem != "conftest"]
    assert sorted(names) == sorted(set(names))


def docstrings(tree: ast.Module) -> set[ast.AST]:
    """The nodes of a module that are its documentation."""
    documented = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    starts = [node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and node.body]
    return {node.value for node in starts if isinstance(node, ast.Expr)}


@pytest.mark.parametrize(
    "path", [*MODULES, *sorted(TESTS.glob("helpers/*.py"))], ids=lambda path: str(path.relative_to(TESTS))
)
def test_long_texts_lie_in_files(path):
    """Code in a string is neither linted nor coloured. From 16 lines on it lies in tests/snippets/."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            lines = node.value.strip().count("\n") + 1
            assert lines <= 15, f"line {node.lineno}: a string of {lines} lines"


# ---------------------------------------------------------------- the engine

TRUNK = ("loop", "api", "rng", "schedule", "setup", "train", "launch", "batches/plan", "run/checkpoint")
"""What tells in an evening how a run comes about, in reading order."""
LARGEST_TRUNK, LARGEST_FILE, LARGEST_ENGINE, LARGEST_OF_REGRESSION = 1_750, 350, 14_028, 12_515
ROOMS = (
    ("errors", "paths", "text", "rng", "folds", "signals", "predictions", "means", "sink"),
    ("config",),
    ("progress", "schedule"),
    ("api",),
    ("losses", "datasets", "models", "loggers"),
    ("machine",),
    ("run", "batches"),
    ("build",),
    ("log",),
    ("setup",),
    ("loop", "validation"),
    ("launch",),
    ("failures",),
    ("train",),
    ("tools",),
)
"""Rooms and files of the engine. Each imports from its own line and the lines before it."""
FOR_BUILT_INS = {"errors", "paths", "text", "rng", "folds", "means", "api", "config"}
"""All that data sets, models, loggers and losses import, besides their own room."""
LAZY = {("log.announce", "tools.curves")}
"""The one thing for which the core imports a tool: the picture at the end of a run."""


@pytest.fixture(scope="session")
def engines(render, tmp_path_factory) -> dict[str, dict[str, str]]:
    """The text of each file of the engine by its path, for each starting point."""
    found = {}
    for point in POINTS:
        project = render(tmp_path_factory.mktemp("engine") / point, package_name="digits", starting_point=point)
        engine = project / "digits/engine"
        paths = [path for path in sorted(engine.rglob("*.py")) if "__pycache__" not in path.parts]
        found[point] = {path.relative_to(engine).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    return found


@pytest.fixture(scope="session")
def whole(engines) -> dict[str, str]:
    """The files of all starting points together."""
    return {path: text for engine in engines.values() for path, text in engine.items()}


def lines(files: Iterable[str]) -> int:
    """Lines of code, comments, documentation and nothing."""
    return sum(len(text.splitlines()) for text in files)


def test_the_trunk_is_read_in_an_evening(whole):
    assert lines(whole[f"{name}.py"] for name in TRUNK) <= LARGEST_TRUNK


def test_the_map_names_the_trunk_in_reading_order(whole):
    named = iter(re.findall(r"[\w/]+\.py", whole["__init__.py"]))
    assert all(f"{name}.py" in named for name in TRUNK)


def test_the_map_names_every_room_and_no_file_that_is_gone(whole):
    text = whole["__init__.py"]
    rooms = {path.split("/")[0] + "/" * ("/" in path) for path in whole} - {"__init__.py"}
    assert {room for room in rooms if room not in text} == set()
    named = set(re.findall(r"\w+/\w+\.py|(?<![\w/])\w+\.py", text))
    assert {name for name in named if not any(path.endswith(name) for path in whole)} == set()


def test_the_page_on_the_engine_agrees(whole):
    """docs/engine.md: the trunk in reading order, the rooms in the order of imports, and no file that is gone."""
    page = (ROOT / "docs/engine.md").read_text(encoding="utf-8").partition("## Files that moved")[0]
    assert tuple(re.findall(r"^\| `([\w/]+)\.py` \|", page.partition("## Rooms")[0], re.MULTILINE)) == TRUNK
    rows = re.findall(r"^\| \d+ \| (.+) \|$", page, re.MULTILINE)
    assert tuple(tuple(re.findall(r"`(\w+)", row)) for row in rows) == ROOMS
    assert {name for name in re.findall(r"`([\w/]+\.py)`", page) if name not in whole} == set()


def test_no_file_is_long(whole):
    long = {path: lines([text]) for path, text in whole.items() if lines([text]) > LARGEST_FILE}
    assert long == {}


def test_the_engine_stays_small(engines, whole):
    assert lines(whole.values()) <= LARGEST_ENGINE
    assert lines(engines["regression"].values()) <= LARGEST_OF_REGRESSION


def module(path: str) -> str:
    """The name of a file below the engine, with dots; of a package, that of its folder."""
    return path.removesuffix(".py").removesuffix("__init__").rstrip("/").replace("/", ".")


def relative_imports(path: str, text: str, names: set[str]) -> set[str]:
    """The modules of the engine that a file imports, inside functions too."""
    package, found = path.split("/")[:-1], set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - (node.level - 1)], *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                full = ".".join([*base, alias.name])
                found.add(full if full in names else ".".join(base))
    return found


@pytest.fixture(scope="session")
def graph(whole) -> dict[str, set[str]]:
    """Each module of the engine and those that it imports."""
    names = {module(path) for path in whole}
    return {module(path): relative_imports(path, text, names) for path, text in whole.items()}


def test_imports_go_one_way(graph):
    rank = {name: place for place, room in enumerate(ROOMS) for name in room}
    assert {name.split(".")[0] for name in graph} - {""} == rank.keys(), "every room has its place in the order"
    upward = [
        (one, other)
        for one, others in graph.items()
        for other in others
        if (one, other) not in LAZY and rank[one.split(".")[0]] < rank[other.split(".")[0]]
    ]
    assert upward == []


def test_no_file_imports_itself_by_a_detour(graph):
    graph = {one: {other for other in others if (one, other) not in LAZY} for one, others in graph.items()}
    while free := {one for one, others in graph.items() if not others & graph.keys()}:
        graph = {one: others for one, others in graph.items() if one not in free}
    assert graph == {}, "these files import each other in a circle"


def test_built_in_choices_import_little(graph):
    """So that they read as what an owner would write."""
    for one, others in graph.items():
        room = one.split(".")[0]
        if room in {"datasets", "models", "loggers", "losses"}:
            assert {other.split(".")[0] for other in others} <= FOR_BUILT_INS | {room}, one


def test_the_core_imports_no_tools(graph):
    taken = {(one, o) for one, others in graph.items() for o in others if o.startswith("tools") and "tools" not in one}
    assert taken == LAZY


def test_no_class_is_exchanged(whole):
    """An object keeps the class that it was made of."""
    for path, text in whole.items():
        for node in ast.walk(ast.parse(text)):
            is_set = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            assert not (is_set and node.attr == "__class__"), f"{path}, line {node.lineno}"
