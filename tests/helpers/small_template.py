"""A small template with versions, for tests of `ostinato update`, and edits of its projects."""

from ostinato.errors import Stopped

PACKAGE = "{{ package_name }}"
LINES = "".join(f"line_{n} = {n}\n" for n in range(40))
"""A file that is long enough for edits in different places."""
OLD = {
    f"{PACKAGE}/__init__.py": "",
    f"{PACKAGE}/task.py": LINES,
    f"{PACKAGE}/losses.py": "",
    f"{PACKAGE}/models/net.py": LINES,
    f"{PACKAGE}/engine/__init__.py": "",
    f"{PACKAGE}/engine/loop.py": LINES,
    f"{PACKAGE}/engine/old_name.py": LINES.replace("line", "name"),
    f"{PACKAGE}/engine/gone.py": LINES.replace("line", "gone"),
    f"{PACKAGE}/engine/rewritten.py": LINES.replace("line", "part"),
    f"{PACKAGE}/engine/untouched.py": LINES.replace("line", "same"),
    "configs/train.yaml": "lr: 0.1\n",
    "configs/experiment/one.yaml": "lr: 0.2\n",
    "configs/optimizer/adamw.yaml": LINES.replace(" =", ":"),
    "configs/model/net.yaml": "width: 32 # channels\ndepth: 2 # blocks\n",
    "configs/model/gone.yaml": "width: 8\n",
    "tests/test_task.py": LINES,
    "tests/engine/test_loop.py": LINES,
    "README.md": "# Mine\n",
    "train.py.jinja": f"import {PACKAGE}\n{LINES}",
    "pyproject.toml": f'[project]\ndependencies = [\n    "hydra",\n    "torch",\n]\n\n[tool]\n{LINES}',
}
NEW = OLD | {
    f"{PACKAGE}/task.py": "the template's\n",
    f"{PACKAGE}/models/net.py": "the template's\n",
    f"{PACKAGE}/models/another.py": "the template's\n",
    f"{PACKAGE}/engine/loop.py": LINES.replace("line_20 = 20", "line_20 = 'new'"),
    f"{PACKAGE}/engine/new_name.py": LINES.replace("line", "name").replace("name_20 = 20", "name_20 = 'new'"),
    f"{PACKAGE}/engine/folder/added.py": "the template's\n",
    f"{PACKAGE}/engine/folder/first.py": "".join(f"part_{n} = {n}\n" for n in range(5)) + "the template's\n" * 40,
    f"{PACKAGE}/engine/folder/second.py": "".join(f"part_{n} = {n}\n" for n in range(20, 30)),
    "configs/train.yaml": "lr: 0.3\n",
    "configs/optimizer/adamw.yaml": LINES.replace(" =", ":").replace("line_20: 20", "line_20: new"),
    "configs/model/net.yaml": "width: 32 # channels of a layer\ndepth: 2 # number of blocks\n",
    "configs/scheduler/new.yaml": "the: template's\n",
    "tests/test_task.py": "the template's\n",
    "README.md": "the template's\n",
    "pyproject.toml": OLD["pyproject.toml"].replace("line_20 = 20", "line_20 = 'new'"),
}
for name in ("old_name", "gone", "rewritten"):
    del NEW[f"{PACKAGE}/engine/{name}.py"]
del NEW["configs/model/gone.yaml"]
MOVED = "engine/rewritten.py: [engine/folder/first.py, engine/folder/second.py]\n"
CHANGES = """# Changelog

## Unreleased

- nothing yet

## 0.2.0 (2030-02-01)

- a new loop

## 0.1.0

- all of it
"""
USERS = ["README.md", "configs/experiment/one.yaml", "configs/train.yaml", "digits/losses.py", "digits/models/net.py"]
USERS += ["digits/task.py", "tests/test_task.py"]
"""What is the user's of OLD."""


class Result(str):
    """What a command said; `code` is its exit code."""

    code: int


def changed(text: str, line: int, to: str) -> str:
    lines = text.splitlines()
    lines[line] = to
    return "\n".join(lines) + "\n"


def failing(trees, say):
    raise Stopped("It does not train.")
