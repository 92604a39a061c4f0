"""The README's examples and claims are executed, not only read."""

import re
import runpy
import sys
import tarfile
from pathlib import Path

import pytest
from helpers.pages import blocks
from helpers.template import POINTS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_step_is_the_one_in_the_engine():
    loop = (ROOT / "template/{{ package_name }}/engine/loop.py").read_text()
    page = (ROOT / "docs/engine.md").read_text()
    (step,) = [text for language, text in blocks(page) if language == "python" and "def training_step" in text]
    indented = "".join("    " + line + "\n" if line else "\n" for line in step.splitlines())
    assert indented in loop
    assert f"[{len(step.splitlines())} lines]" in README


def test_the_commands_are_what_ci_runs():
    ci = (ROOT / ".ci/run").read_text()
    assert 'uvx copier copy --defaults --vcs-ref HEAD "$PWD" ' in README
    assert 'uvx copier copy --defaults --vcs-ref HEAD "$PWD" ' in ci
    assert ci.rstrip().endswith("uv run pytest")
    assert "uv run pytest" in README


def test_what_the_readme_names_exists(project):
    for link in re.findall(r"\]\(<?([^)>#]+)>?[^)]*\)", README):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link
    for group, choice in re.findall(r" (data|model|experiment)=(\w+)", README):
        assert (project / "configs" / group / f"{choice}.yaml").exists(), choice


def test_the_readme_is_one_screen_of_text():
    assert len(README.split()) < 950


def test_snippets_use_the_package_that_the_command_renders(render, tmp_path):
    """The README's command takes all defaults."""
    answers = (render(tmp_path / "digits") / ".copier-answers.yml").read_text()
    assert "package_name: my_project" in answers
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        named = re.findall(r"python -m (\w+) (?:evaluate|predict|export|compare|reproduce)", page.read_text())
        assert set(named) <= {"my_project", "spirals"}, page


def test_the_reference_is_current():
    """Else run docs/make_reference.py."""
    pages = runpy.run_path(str(ROOT / "docs/make_reference.py"))["PAGES"]
    for name, page in pages.items():
        assert (ROOT / "docs/reference" / name).read_text(encoding="utf-8") == page(), name


def test_what_is_made_of_the_schema_is_current():
    """Else run docs/make_config.py."""
    sys.path.insert(0, str(ROOT / "docs"))
    from make_config import files

    assert {path: path.read_text(encoding="utf-8") for path in files()} == files()


@pytest.mark.parametrize("point", POINTS)
def test_the_readme_of_each_starting_point_is_complete(render, tmp_path, point):
    project = render(tmp_path / "new", package_name="digits", starting_point=point)
    text = (project / "README.md").read_text()
    assert re.findall("^## (.*)$", text, re.MULTILINE) == [
        "Train",
        "Use a run",
        "Change it",
        "Your files and the template's files",
    ]
    named = re.findall(r"`((?:configs|digits)/[\w/]+(?:\.\w+)?/?)`", text)
    assert len(named) > 10
    assert [path for path in named if "NAME" not in path and not (project / path).exists()] == []
    (target,) = re.findall(r"`_target_: \.([\w.]+)`", text)
    module, _, name = target.rpartition(".")
    assert f"class {name}(" in (project / "digits" / (module.replace(".", "/") + ".py")).read_text()
    for group, choice in re.findall(r" (model|data|experiment)=(\w+)", text):
        assert (project / "configs" / group / f"{choice}.yaml").exists(), (group, choice)


def test_the_glossary_has_at_most_thirty_words_each_once():
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    words = [word for word, _ in rows]
    assert 20 <= len(words) <= 30
    assert len(set(words)) == len(words)


def test_the_page_of_the_engine_names_files_that_exist_and_all_that_moved():
    engine = ROOT / "template/{{ package_name }}/engine"
    text = (ROOT / "docs/engine.md").read_text()
    before, moved = text.split("## Files that moved after 0.2.0")
    named = re.findall(r"`([\w/]+\.py|\w+/)`", before)
    assert len(named) > 30
    named = [path for path in named if path not in ("engine/", "configs/")]
    assert [path for path in named if not (engine / path).exists()] == []
    for room in engine.iterdir():
        assert not room.is_dir() or room.name == "__pycache__" or f"{room.name}/" in named, room.name
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \|$", moved, re.MULTILINE)
    table = dict(rows)
    assert len(rows) == len(table)
    for new in table.values():
        assert all((engine / path).exists() for path in re.findall(r"`([\w/]+\.py)`", new)), new
    with tarfile.open(ROOT / "tests/releases/0.2.0.tar.gz") as release:
        paths = {name.partition("/engine/")[2] for name in release.getnames() if "package_name }}/engine/" in name}
    gone = {path for path in paths if path and "tests" not in path and not (engine / path).exists()}
    assert set(table) == gone
