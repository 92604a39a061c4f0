"""Files of an owner that tests add to a project. They lie in tests/snippets/, each at its place in the project."""

import shutil
from pathlib import Path

SNIPPETS = Path(__file__).parents[1] / "snippets"


def add(project: Path, *paths: str) -> None:
    """Copy these snippets into a project of the package `digits`."""
    for path in paths:
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SNIPPETS / path, project / path)


def text(path: str) -> str:
    """The text of a snippet, for a test that changes it."""
    return (SNIPPETS / path).read_text(encoding="utf-8")


def add_patched(project: Path) -> None:
    """Add digits/patched.py, and import it first in train.py and in the verbs."""
    add(project, "digits/patched.py")
    for path, line in (("train.py", "import digits.patched"), ("digits/__main__.py", "from . import patched")):
        file = project / path
        before = file.read_text()
        assert before.count("import sys\n") == 1
        file.write_text(before.replace("import sys\n", f"import sys\n{line}\n"))
