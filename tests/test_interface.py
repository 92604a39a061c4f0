"""What projects rely on may grow, but nothing of it may go or change; interface.txt lists it.

After a deliberate addition: `python tests/test_interface.py > tests/interface.txt` in a rendered project's
environment, with the project on PYTHONPATH as `digits`.
"""

import ast
import dataclasses
import enum
import functools
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.releases import unpack, versions
from helpers.template import ROOT

import ostinato.__main__

FROZEN = Path(__file__).parent / "interface.txt"
Engine = Callable[[str], ModuleType]


def written(function: Callable[..., Any]) -> str:
    """The signature as it is written in the source, however its annotations are stored."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){returns}".replace("'", "")


def of_api(api: ModuleType) -> Iterator[str]:
    """One line for each name, member and signature of engine/api.py."""
    for name in sorted(api.__all__):
        thing = getattr(api, name)
        if inspect.isclass(thing):
            yield f"api {name}"
            for member in sorted(vars(thing)):
                if not member.startswith("_"):
                    value = inspect.getattr_static(thing, member)
                    value = value.__func__ if isinstance(value, classmethod | staticmethod) else value
                    yield f"api {name}.{member}{written(value) if inspect.isfunction(value) else ''}"
            for field in getattr(thing, "_fields", ()):
                yield f"api {name} field {field}"
        else:
            yield f"api {name}{written(thing)}"


def of_runs(engine: Engine) -> Iterator[str]:
    """One line for each config key, exit code, and key of a checkpoint and a manifest."""
    config, errors = engine("config.schema"), engine("errors")
    for prefix, section in (("", config.Config), ("log.", config.Log), ("find_lr.", config.FindLr)):
        for field in dataclasses.fields(section):
            kind = field.type if isinstance(field.type, str) else inspect.formatannotation(field.type)
            kind = re.sub(r"\b(?:\w+\.)+", "", kind)  # modules
            yield f"config {prefix}{field.name}: {kind}"
    yield "checkpoint format"
    facts = engine("run.facts")
    yield from (f"checkpoint {key.rstrip('?')}" for key in facts.CHECKPOINT)
    yield from (f"manifest {key.rstrip('?')}" for key in facts.MANIFEST)
    for name in ("FINISHED", "FAILED", "MISTAKE", "SAVE_FAILED", "STOPPED", "NOT_FINITE"):
        yield f"exit code {name} = {getattr(errors, name)}"


def of_commands(engine: Engine) -> Iterator[str]:
    """One line for each verb of a project and of `ostinato`, and for each of their options."""
    main = importlib.import_module("..__main__", engine("errors").__package__)
    for program, parser in (("project", main._parser()), ("ostinato", ostinato.__main__.parser())):
        (verbs,) = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
        for verb, options in verbs.items():
            yield f"command {program} {verb}"
            yield from (
                f"command {program} {verb} {word}" for action in options._actions for word in action.option_strings
            )


# ---------------------------------------------------------------- what files import

IMPORT = re.compile(r"^\s*from (?:\.+|[\w{} ]+\.)engine(?:\.([\w.]+))? import ([\w, ]+)", re.MULTILINE)
TARGET = re.compile(r"_target_(?:: *|=)(\.engine\.[\w.]+)")
ENGINES_OWN = re.compile(r"/engine/|__main__\.py")
"""Files that an update renews together with the engine."""
GIVEN_BY_THE_ENGINE = {"horizon", "folder", "next_step", "info", "forgiving"}
"""Arguments that no config may give: the engine passes them."""


def imports(text: str) -> Iterator[str]:
    """The names below the engine that a file uses, such as `rng.seed_all`."""
    for module, names in IMPORT.findall(text):
        for name in (part.split(" as ")[0].strip() for part in names.split(",")):
            if module:
                yield f"{module}.{name}"
            else:  # a module as a whole: what is used of it
                yield from re.findall(rf"\b{name}\.[\w.]*\w", text)


@functools.cache
def texts(folder: Path) -> tuple[str, ...]:
    """The files of a template that projects or readers build on."""
    paths = [path for top in ("template", "docs", "README.md") for path in (folder / top, *(folder / top).rglob("*"))]
    kinds = {".py", ".jinja", ".yaml", ".md"}
    return tuple(
        path.read_text(encoding="utf-8")
        for path in paths
        if path.is_file() and path.suffix in kinds and not ENGINES_OWN.search(path.as_posix())
    )


def named(folders: Iterable[Path], frozen: Iterable[str]) -> tuple[set[str], set[str]]:
    """All names that files in these folders import, and all targets; with those that were listed before."""
    every = [text for folder in folders for text in texts(folder)]
    used = {name for text in every for name in imports(text)}
    targets = {target for text in every for target in TARGET.findall(text)}
    for line in frozen:
        kind, name = line.split()[:2]
        if kind == "import":
            used.add(name.split("(")[0])
        elif kind == "target":
            targets.add(name)
    return used, targets


def found(engine: Engine, name: str) -> Any:
    """What `name` below the engine is. Raises `ImportError` or `AttributeError`."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            module = engine(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[cut:], module)
    raise ImportError(name)


def needed(function: Callable[..., Any]) -> str:
    """The arguments without which a function cannot be called, and `*` where it takes any number."""
    parameters = inspect.signature(function).parameters.values()
    return ", ".join(str(p).split(":")[0] for p in parameters if p.default is p.empty)


def taken(kind: Callable[..., Any]) -> list[str]:
    """The arguments that a config, or an owner's call, may give."""
    return [name for name in inspect.signature(kind).parameters if name not in GIVEN_BY_THE_ENGINE]


def of_files(engine: Engine, used: set[str], targets: set[str]) -> Iterator[str]:
    """One line for each imported name, each target, and each argument of a class."""
    here = {f"import {name}": name for name in sorted(used) if not name.startswith("api.")}  # which is listed above
    here |= {f"target {name}": name.removeprefix(".engine.") for name in sorted(targets)}
    for line, name in here.items():
        try:
            thing = found(engine, name)
        except (ImportError, AttributeError):
            continue
        plain = inspect.isclass(thing) and not issubclass(thing, enum.Enum | BaseException)
        is_function = inspect.isroutine(thing) and not line.startswith("target")
        yield f"{line}({needed(thing)})" if is_function else line
        if plain or line.startswith("target"):
            yield from (f"{line} takes {argument}" for argument in taken(thing))


def lines(engine: Engine, folders: Iterable[Path], frozen: Iterable[str]) -> list[str]:
    """All that projects rely on, as it is now."""
    used, targets = named(folders, frozen)
    return [*of_api(engine("api")), *of_runs(engine), *of_commands(engine), *of_files(engine, used, targets)]


# ---------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every release, and the working tree."""
    return [ROOT, *(unpack(version, tmp_path_factory.mktemp("release")) for version in versions())]


@pytest.fixture(scope="module")
def frozen() -> list[str]:
    return FROZEN.read_text(encoding="utf-8").splitlines()


def test_nothing_that_projects_rely_on_is_gone(engine, folders, frozen):
    now = lines(engine, folders, frozen)
    retired = tuple(f"config {key}: " for key in engine("config.check").RETIRED)
    assert [line for line in frozen if line not in now and not line.startswith(retired)] == []
    assert [line for line in now if line.startswith(retired)] == []
    assert {line.split(":")[0] for line in frozen} >= {start.removesuffix(": ") for start in retired}


def test_the_list_is_complete(engine, folders, frozen):
    """What is new must be listed too: from then on it is relied on."""
    assert [line for line in lines(engine, folders, frozen) if line not in frozen] == []


def test_every_name_that_files_use_is_listed(folders, frozen):
    """So a name that does not exist, or that nobody listed, is noticed."""
    used, targets = named(folders, [])
    listed = {line.split("(")[0].split()[1] for line in frozen if line.startswith(("import ", "target "))}
    listed |= {f"api.{line.split('(')[0].split()[1]}" for line in frozen if line.startswith("api ")}
    assert {"api.Task", "rng.seed_all", "launch.compose", "setup.build_parts"} <= used
    assert {".engine.schedule.Cosine", ".engine.datasets.torchvision.TorchvisionImages"} <= targets
    assert (used | targets) - listed == set()


def test_the_page_names_every_method(engine):
    page = (ROOT / "docs/interface.md").read_text()
    api = engine("api")
    for kind in (api.Data, api.Task, api.Logger):
        for name in vars(kind):
            if not name.startswith("_"):
                assert f"`{name}" in page, f"{kind.__name__}.{name}"


def test_the_page_names_every_key_of_a_checkpoint(engine):
    page = (ROOT / "docs/runs.md").read_text(encoding="utf-8")
    page = page[page.index("| key of a checkpoint |") : page.index("## Exit codes")]
    keys = {"format", "task", "data", *(key.rstrip("?") for key in engine("run.facts").CHECKPOINT)}
    assert set(re.findall(r"`(\w+)`", page)) >= keys


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        everything = [ROOT, *(unpack(version, Path(scratch, version)) for version in versions())]
        listed = FROZEN.read_text(encoding="utf-8").splitlines()
        print("\n".join(lines(lambda name: importlib.import_module(f"digits.engine.{name}"), everything, listed)))
