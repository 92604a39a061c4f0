"""Which files are the owner's: every place says the same, and every way of updating keeps to it."""

import re
import runpy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import copier
import pytest
from helpers.releases import NEWEST, commit, files, git, template_part, versions
from helpers.template import POINTS, ROOT
from helpers.updating import QUIET, Versions, apply, checked_update, plain_update

from ostinato.render import ownership

OLDEST = versions()[0]
ANSWERS = {"package_name": "cats"}


def as_before(**answers: str) -> dict[str, object]:
    """The answers of a project from before 0.3.0: it gets no choice whose class is in the user's files."""
    return {**answers, "rendered_as": {"starting_point": "image_classification", **answers}}


@pytest.fixture(params=["plain", "checked"])
def update(request: pytest.FixtureRequest, all_versions: Versions, tmp_path: Path) -> Callable[[Path], None]:
    """Updates a project to the newest version."""
    if request.param == "plain":
        return plain_update
    return lambda project: apply(checked_update(project, all_versions, tmp_path / "scratch"), project)


@pytest.fixture
def project(scaffold: Callable[..., Path], tmp_path: Path) -> Path:
    """A project of the first release, under git."""
    project = shutil.copytree(scaffold(OLDEST, **ANSWERS), tmp_path / "cats")
    git(project, "init", "--quiet")
    commit(project)
    return project


# --- One source


def test_the_tables_are_those_of_copier_yml():
    """Else run docs/make_ownership.py."""
    made = runpy.run_path(str(ROOT / "docs/make_ownership.py"))
    for path, text in made["pages"]().items():
        assert path.read_text(encoding="utf-8") == text, path


def cells(text: str) -> tuple[list[str], list[str]]:
    """The paths that the table names as the user's, and as the template's."""
    rows = re.search(r"^\| yours: .*\n\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    sides: tuple[list[str], list[str]] = ([], [])
    for row in rows[1].splitlines():
        for side, cell in zip(sides, row.strip("|").split(" | "), strict=True):
            names = re.findall("`(.+?)`", cell)
            folder = "cats/" if names and names[0].startswith("cats/") else ""
            side += [name if name.startswith(folder) else folder + name for name in names]
    return sides


@pytest.mark.parametrize("point", POINTS)
def test_the_readme_of_a_project_tells_them_apart_as_an_update_does(template: Path, render, tmp_path: Path, point: str):
    answers = {**ANSWERS, "starting_point": point}
    project = render(tmp_path / "new", **answers)
    owned = ownership(template, answers)
    yours, templates = cells((project / "README.md").read_text(encoding="utf-8"))
    assert len(yours) == 13
    assert len(templates) >= 7

    def matching(names: list[str]) -> set[str]:
        return {path for path in files(project) for name in names if path == name or path.startswith(name)}

    mine = {path for path in files(project) if owned(path)}
    assert matching(yours) - matching(["tests/engine/"]) == mine
    for name in templates:
        inside = [path for path in matching([name]) if name != "configs/" or path not in matching(yours)]
        assert inside, name
        assert not any(map(owned, inside)), name
    # What the table does not name is the template's: the tools' files beside pyproject.toml.
    assert "configs/optimizer/adamw.yaml" not in mine
    assert ".gitattributes" not in mine


# --- Kept


def test_an_update_neither_changes_nor_recreates_what_is_yours(project: Path, template: Path, update):
    owned = ownership(template, ANSWERS)
    yours = sorted(path for path in files(project) if owned(path))
    assert len(yours) > 10
    edited, deleted, moved = yours[0::4], yours[1::4], yours[2::4]
    for path in edited:
        (project / path).write_text("mine\n")
    for path in deleted:
        (project / path).unlink()
    for path in moved:
        target = project / "elsewhere" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (project / path).rename(target)
    added = [project / "cats/models/mine.py", project / "cats/engine/mine.py", project / "configs/data/mine.yaml"]
    for path in added:
        path.write_text("# mine\n")
    commit(project)
    before = files(project)

    update(project)

    after = files(project)
    mine = {path: text for path, text in before.items() if owned(path) or path.startswith("elsewhere/")}
    mine |= {path.relative_to(project).as_posix(): b"# mine\n" for path in added}
    assert {path: after.get(path) for path in mine} == mine
    assert not [path for path in deleted + moved if path in after]
    assert f"_commit: {NEWEST}" in after[".copier-answers.yml"].decode()


def test_what_is_the_templates_arrives_new_choices_included(project: Path, scaffold, template: Path, update):
    owned = ownership(template, ANSWERS)
    update(project)
    expected = template_part(scaffold(NEWEST, **as_before(**ANSWERS)), owned)
    assert template_part(project, owned) == expected
    assert any(path.startswith("configs/") for path in expected)


def test_recopy_overwrites_edits_and_recreates_what_was_deleted_but_keeps_what_was_added(
    project: Path, repository: Path
):
    original = files(project)
    for path in ("cats/task.py", "cats/engine/loop.py"):
        (project / path).write_text("mine\n")
    (project / "README.md").unlink()
    (project / "cats/models/mine.py").write_text("# mine\n")
    commit(project)
    copier.run_recopy(project, vcs_ref=OLDEST, **QUIET)
    assert files(project) == {**original, "cats/models/mine.py": b"# mine\n"}


# --- Renaming


@pytest.mark.parametrize(
    ("operation", "question", "answer"),
    [
        (copier.run_update, "package_name", "dogs"),
        (copier.run_update, "starting_point", "regression"),
        (copier.run_recopy, "package_name", "dogs"),
        (copier.run_copy, "starting_point", "regression"),
    ],
)
def test_another_package_name_or_starting_point_is_refused(
    project: Path, repository: Path, operation: Callable[..., object], question: str, answer: str
):
    before = files(project)
    place = (str(repository), project) if operation is copier.run_copy else (project,)
    with pytest.raises(ValueError, match=f"The {question} of this project is .* cannot become {answer} by an update"):
        operation(*place, data={question: answer}, **QUIET)
    assert files(project) == before


def test_an_edited_answers_file_is_refused_too(project: Path):
    answers = project / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace("\npackage_name: cats", "\npackage_name: dogs"))
    commit(project)
    before = files(project)
    with pytest.raises(ValueError, match="is cats and cannot become dogs"):
        copier.run_update(project, **QUIET)
    assert files(project) == before


def test_renaming_by_hand_as_the_page_says(project: Path, scaffold, template: Path, update):
    page = (ROOT / "docs/ownership.md").read_text(encoding="utf-8")
    block = re.search(r"^## Renaming.*?```bash\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    script = block[1].replace("OLD", "cats").replace("NEW", "dogs")
    git(project, "config", "user.name", "Me")
    git(project, "config", "user.email", "me@example.org")
    loop = project / "cats/engine/loop.py"
    loop.write_text(f"# mine\n{loop.read_text()}")
    (project / "cats/models/mine.py").write_text("from cats.engine.api import Task\n")
    commit(project)
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=project, check=True)
    assert (project / "dogs/models/mine.py").read_text() == "from dogs.engine.api import Task\n"
    assert git(project, "status", "--porcelain") == ""

    update(project)

    owned = ownership(template, {"package_name": "dogs"})
    now = template_part(project, owned)
    loop = now["dogs/engine/loop.py"]
    assert loop.startswith(b"# mine\n")
    now["dogs/engine/loop.py"] = loop.removeprefix(b"# mine\n")
    fresh = template_part(scaffold(NEWEST, **as_before(package_name="dogs")), owned)
    assert now == fresh
    assert not (project / "cats").exists()
