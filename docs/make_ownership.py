"""Writes the table of whose file is whose, from copier.yml: `python docs/make_ownership.py`. A test keeps it current.

The one source is what copier.yml leaves out of updates. The table goes into includes/ownership.jinja, which the
READMEs of rendered projects show, and between the marks of README.md and docs/ownership.md.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "{{ package_name }}/"
TEMPLATES = {
    "configs/": "the other files in `configs/`, so that new choices arrive",
    PACKAGE: f"`{PACKAGE}engine/`, `__init__.py`, `__main__.py`",
    "tests/": "",
    "": "`train.py`, `find_lr.py`, `pyproject.toml`, CI, editor and lint files",
}
"""What remains for the template, by the folder that a row is about."""
MARKS = ("<!-- ownership -->\n", "<!-- end of ownership -->\n")


def patterns() -> list[str]:
    """The lines of copier.yml that keep an update from the user's files, in gitignore's syntax."""
    text = (ROOT / "copier.yml").read_text(encoding="utf-8")
    block = re.search(r"\{% if _copier_operation == 'update' %\}\n(.*?)\n *\{% endif %\}", text, re.DOTALL)
    assert block is not None, "copier.yml has no block of what updates leave out"
    return [line.strip() for line in block[1].splitlines()]


def table(package: str = PACKAGE) -> str:
    """The table in Markdown; `package` is what stands for the package's folder."""
    yours: dict[str, list[str]] = {folder: [] for folder in TEMPLATES}
    templates = {folder: [text] if text else [] for folder, text in TEMPLATES.items()}
    for pattern in patterns():
        path = pattern.removeprefix("!").removeprefix("/").removesuffix("/**")
        path += "" if "." in path.rpartition("/")[2] else "/"
        folder = next(folder for folder in TEMPLATES if path.startswith(folder))
        cell = (templates if pattern.startswith("!") else yours)[folder]
        cell.append(f"`{path.removeprefix(folder) if cell and folder == PACKAGE else path}`")
    rows = ["| yours: an update never touches it | the template's: an update renews it and merges your edits |"]
    rows.append("|---|---|")
    rows += [f"| {', '.join(yours[folder])} | {', '.join(templates[folder])} |" for folder in TEMPLATES]
    return "\n".join(rows).replace(PACKAGE, package) + "\n"


def pages() -> dict[Path, str]:
    """The files that hold the table, and what they should hold."""
    found = {ROOT / "includes/ownership.jinja": table()}
    for path in (ROOT / "README.md", ROOT / "docs/ownership.md"):
        before, _, rest = path.read_text(encoding="utf-8").partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        assert after, f"{path} lacks the marks of the table"
        found[path] = f"{before}{MARKS[0]}{table('my_project/')}{MARKS[1]}{after}"
    return found


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
