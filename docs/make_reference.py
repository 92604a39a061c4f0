"""Write docs/reference/ from the code: `python docs/make_reference.py`. A test keeps the pages current.

choices.md comes from the files in configs/, commands.md from the options of the commands, api.md from engine/api.py.
"""

import argparse
import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent
TEMPLATE = DOCS.parent / "template"
PACKAGE = TEMPLATE / "{{ package_name }}"
GROUPS = ("data", "model", "loss", "mix", "optimizer", "scheduler", "logger", "sweep", "debug", "experiment")
COMMANDS = """# Commands

For everyone who looks up a command or an option. This page is made from the code.

| command | does |
|---|---|
| `python train.py KEY=VALUE …` | trains one run. [Config keys](../config.md), [choices](choices.md) |
| `python train.py -m KEY=VALUE,VALUE …` | trains a run for each combination: [sweeps](../sweeps-and-lr.md#grids) |
| `python train.py dry_run=true …` | shows [what a run will be](../sweeps-and-lr.md#what-will-this-run-be) |
| `python train.py resume=auto …` | [goes on](../how-to/resume.md) with the newest run of this config |
| `python find_lr.py KEY=VALUE …` | [suggests a learning rate](../sweeps-and-lr.md#which-learning-rate) |
| `torchrun --nproc-per-node=N train.py …` | trains one run on [several processes](../several-gpus.md) |
| `uvx --from SOURCE ostinato reproduce FILE.run.zip` | [repeats a packed run](../how-to/repeat-a-paper.md) |
| `uvx --from SOURCE ostinato update` | brings a new version of the template: [updates](../updates.md) |

`train.py` and `find_lr.py` also take `--help`, `-q` (warnings only) and `-v` (debug messages and tracebacks).
The commands below read run folders. [After a run](../after-the-run.md) shows their output. All use the same
[exit codes](../runs.md#exit-codes).
"""
CHOICES = """# Choices

For everyone who looks up what `data=`, `model=`, `optimizer=` … may be. This page is made from the files in `configs/`.
A project holds the choices of its starting point. Each key below a name is an override, such as `model.width=64`. Your
own file in `configs/<group>/` is a choice, too. A class may be one: `optimizer=torch.optim.RMSprop`.
"""
API = """# engine/api.py

For everyone who writes a task, a data set, a loss or a logger. This page is made from the code.
[The interface](../interface.md) says when the engine calls each method.

```python
from .engine.api import Data, Mean, Task, record  # in a file of the package
```
"""


def starting_point(path: Path) -> str:
    """Return the starting point that has a file, or "" if all have it."""
    return found[1] if (found := re.search(r"starting_point == '(\w+)'", str(path))) else ""


def place(path: Path) -> tuple[bool, str, str]:
    """Return what choices are sorted by: those of the default project come first."""
    point = starting_point(path)
    return point not in ("", "image_classification"), point, path.stem


def choices() -> str:
    """Return the page of all choices."""
    lines = [CHOICES]
    for group in GROUPS:
        lines.append(f"## {group}=\n")
        files = TEMPLATE.glob(f"**/configs/{group}/*.yaml")
        for path in sorted(files, key=place):
            text = re.sub(
                r"^# (@package|yaml-language-server).*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE
            )
            head = re.match(r"(?:#.*\n)*", text)[0].replace("# ", "", 1)  # type: ignore[index]
            meaning, _, commands = head.partition("\n#   ")
            point = starting_point(path).replace("_", " ")
            commands = re.sub(r" {3,}", "\n", commands.partition("\n# ")[0].rstrip("\n"))
            rest = head.partition("\n#   ")[2].partition("\n# ")[2]
            lines.append(f"### {group}={path.stem}\n")
            prose = re.sub(r"\n# ?", " ", f"{meaning}\n# {rest}" if rest else meaning).strip()
            prose = prose.replace("<", "&lt;").replace("*", r"\*")
            lines.append(f"{prose}{f' Starting point: {point}.' if point else ''}\n")
            body = text[re.match(r"(?:#.*\n)*", text).end() :].strip()  # type: ignore[union-attr]
            lines.append(f"```bash\n{commands}\n```\n" if commands else "")
            lines.append(f"```yaml\n{body}\n```\n" if body != "{}" else "")
    return "\n".join(line for line in lines if line)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m my_project`."""
    spec = importlib.util.spec_from_file_location(
        "my_project", PACKAGE / "__init__.py", submodule_search_locations=[str(PACKAGE)]
    )
    assert spec is not None
    sys.modules.setdefault("my_project", importlib.util.module_from_spec(spec))
    return importlib.import_module("my_project.__main__")._parser()


def commands() -> str:
    """Return the page of commands and options."""
    (verbs,) = [action.choices for action in parser()._actions if isinstance(action.choices, dict)]
    lines = [COMMANDS]
    for name, verb in verbs.items():
        lines.append(f"## python -m my_project {name}\n\n{verb.description}\n\n| option | meaning |\n|---|---|")
        for action in verb._actions:
            if action.dest == "help":
                continue
            value = action.metavar or ("|".join(action.choices) if action.choices else action.dest.upper())
            value = "" if action.nargs == 0 else value  # a switch
            word = f"{', '.join(action.option_strings)} {value}".rstrip() if action.option_strings else value
            word += " …" if action.nargs == "+" else ""
            help = action.help or f"default: {action.default}"
            lines.append(f"| `{word.replace('|', chr(92) + '|')}` | {help.replace('|', chr(92) + '|')} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def classes_and_functions() -> dict[str, ast.ClassDef | ast.FunctionDef]:
    """Return each public name of engine/api.py with the code that defines it."""
    found: dict[str, ast.ClassDef | ast.FunctionDef] = {}
    names: list[str] = []
    for file in ("api", "means", "predictions", "schedule", "sink", "errors"):
        for node in ast.parse((PACKAGE / f"engine/{file}.py").read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                found.setdefault(node.name, node)
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names = names or ast.literal_eval(node.value)
    return {name: found[name] for name in names}


def signature(node: ast.FunctionDef, owner: str = "") -> str:
    """Return `owner.name(arguments) -> result` without `self`."""
    arguments = re.sub(r"^(self|cls)(, )?", "", ast.unparse(node.args))
    result = f" -> {ast.unparse(node.returns)}" if node.returns and ast.unparse(node.returns) != "None" else ""
    return f"{owner}{node.name}({arguments}){result}"


def members(node: ast.ClassDef) -> Iterator[str]:
    """Yield the fields of a class, then its methods, each with its docstring."""
    for place, item in enumerate(node.body):
        if isinstance(item, ast.AnnAssign) and not ast.unparse(item.target).startswith("_"):
            after = node.body[place + 1] if place + 1 < len(node.body) else None
            is_told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            meaning = ": " + " ".join(str(after.value.value).split()) if is_told else ""  # type: ignore[union-attr]
            yield f"- `{ast.unparse(item)}`{meaning}"
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
            text = ast.get_docstring(item) or ""
            yield f"\n**`{signature(item, f'{node.name}.')}`**\n\n{text}".rstrip()


def api() -> str:
    """Return the page of the interface's names."""
    lines = [API]
    for name, node in classes_and_functions().items():
        lines.append(f"## {name}\n")
        if isinstance(node, ast.FunctionDef):
            lines.append(f"`{signature(node)}`\n")
        else:
            begins = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
            lines += [f"`{signature(item).replace('__init__', name)}`\n" for item in begins]
        lines.append(f"{ast.get_docstring(node) or ''}\n")
        if isinstance(node, ast.ClassDef):
            lines.append("\n".join(members(node)).strip() + "\n")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


PAGES = {"choices.md": choices, "commands.md": commands, "api.md": api}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / "reference" / name).write_text(page(), encoding="utf-8")
