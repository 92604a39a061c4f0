"""Write the table of whose file is whose: `python docs/make_ownership.py`. A test keeps it current.

The source is copier.yml: the files that it leaves out of updates are the owner's. The table goes into
includes/ownership.jinja, for the READMEs of projects, and between the marks of docs/ownership.md.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "{{ package_name }}/"
TEMPLATES = {
    "configs/": "the other files in `configs/`, so that new choices arrive",
    PACKAGE: f"`{PACKAGE}engine/`, `__init__.py`, `__main__.py`",
    "tests/": "",
    "": "`train.py`, `find_lr.py`, `slurm.sh`, `pyproject.toml`, `.editorconfig`, CI and lint files",
}
"""The template's files of each row, by folder."""
MARKS = ("<!-- ownership -->\n", "<!-- end of ownership -->\n")


def patterns() -> list[str]:
    """Return the patterns of copier.yml for the owner's files, in gitignore's syntax."""
    text = (ROOT / "copier.yml").read_text(encoding="utf-8")
    block = re.search(r"\{% if _copier_operation == 'update' %\}\n(.*?)\n *\{% endif %\}", text, re.DOTALL)
    assert block is not None, "copier.yml has no block of what updates leave out"
    return [line.strip() for line in block[1].splitlines()]


def table(package: str = PACKAGE) -> str:
    """Return the table in Markdown. `package` is the folder of the package as it is shown."""
    yours: dict[str, list[str]] = {folder: [] for folder in TEMPLATES}
    templates = {folder: [text] if text else [] for folder, text in TEMPLATES.items()}
    for pattern in patterns():
        path = pattern.removeprefix("!").removeprefix("/").removesuffix("/**")
        is_file = "." in path.rpartition("/")[2][1:] or (ROOT / "template" / path).is_file()
        path += "" if is_file else "/"
        folder = next(folder for folder in TEMPLATES if path.startswith(folder))
        cell = (templates if pattern.startswith("!") else yours)[folder]
        cell.append(f"`{path.removeprefix(folder) if cell and folder == PACKAGE else path}`")
    rows = ["| yours: an update never touches it | the template's: an update renews it and merges your edits |"]
    rows.append("|---|---|")
    rows += [f"| {', '.join(yours[folder])} | {', '.join(templates[folder])} |" for folder in TEMPLATES]
    return "\n".join(rows).replace(PACKAGE, package) + "\n"


def pages() -> dict[Path, str]:
    """Return the files that hold the table, and their right content."""
    found = {ROOT / "includes/ownership.jinja": table()}
    path = ROOT / "docs/ownership.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    assert after, f"{path} lacks the marks of the table"
    found[path] = f"{before}{MARKS[0]}{table('my_project/')}{MARKS[1]}{after}"
    return found


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
