"""What projects rely on may grow, but nothing of it may go or change; interface.txt lists it.

After a deliberate addition: `python tests/test_interface.py > tests/interface.txt` in a rendered project's
environment, with the project on PYTHONPATH as `digits`.
"""

import dataclasses
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

FROZEN = Path(__file__).parent / "interface.txt"


def lines(api: ModuleType, config: ModuleType, checkpoint: ModuleType, errors: ModuleType) -> Iterator[str]:
    """One line for each name, signature, config key, checkpoint key and exit code."""
    for name in sorted(api.__all__):
        thing = getattr(api, name)
        if inspect.isclass(thing):
            yield f"api {name}"
            for member in sorted(vars(thing)):
                if not member.startswith("_"):
                    value = inspect.getattr_static(thing, member)
                    value = value.__func__ if isinstance(value, classmethod | staticmethod) else value
                    shown = inspect.signature(value) if inspect.isfunction(value) else ""
                    yield f"api {name}.{member}{shown}"
            for field in getattr(thing, "_fields", ()):
                yield f"api {name} field {field}"
        else:
            yield f"api {name}{inspect.signature(thing)}"
    for prefix, section in (("", config.Config), ("log.", config.Log), ("find_lr.", config.FindLr)):
        for field in dataclasses.fields(section):
            yield f"config {prefix}{field.name}: {field.type}"
    for key in checkpoint.KEYS:
        yield f"checkpoint {key}"
    for name in ("FINISHED", "FAILED", "MISTAKE", "SAVE_FAILED", "STOPPED", "NOT_FINITE"):
        yield f"exit code {name} = {getattr(errors, name)}"


def test_nothing_that_projects_rely_on_is_gone(engine):
    now = list(lines(*map(engine, ("api", "config.schema", "run.checkpoint", "errors"))))
    gone = [line for line in FROZEN.read_text().splitlines() if line not in now]
    assert not gone


def test_the_list_is_complete(engine):
    """What is new must be listed too: from then on it is relied on."""
    now = list(lines(*map(engine, ("api", "config.schema", "run.checkpoint", "errors"))))
    listed = FROZEN.read_text().splitlines()
    assert [line for line in now if line not in listed] == []


def test_the_page_names_every_method(engine):
    page = (FROZEN.parents[1] / "docs/interface.md").read_text()
    api = engine("api")
    for kind in (api.Data, api.Task, api.Logger):
        for name in vars(kind):
            if not name.startswith("_"):
                assert f"`{name}" in page, f"{kind.__name__}.{name}"


if __name__ == "__main__":
    modules = [
        importlib.import_module(f"digits.engine.{name}")
        for name in ("api", "config.schema", "run.checkpoint", "errors")
    ]
    print("\n".join(lines(*modules)))
