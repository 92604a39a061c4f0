"""Edits of engine files that the template moved, split or rewrote: an update carries each of them, or reports it."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.releases import NEWEST, commit, git, versions
from helpers.template import ROOT
from helpers.updating import Versions, checked_update, contents

ANSWERS = {"package_name": "digits"}
TABLE: dict[str, list[str]] = yaml.safe_load((ROOT / "includes/moved.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rendered(all_versions: Versions) -> Versions:
    return all_versions


def engine_files(project: Path) -> list[str]:
    return sorted(path.relative_to(project).as_posix() for path in project.glob("digits/engine/**/*.py"))


def test_the_table_names_places_that_exist(rendered: Versions):
    package = rendered.get(NEWEST, ANSWERS)[0] / "digits"
    assert [path for places in TABLE.values() for path in places if not (package / path).is_file()] == []


@pytest.mark.parametrize("version", versions())
def test_the_table_says_where_every_file_of_a_release_went(rendered: Versions, version: str):
    old, new = (rendered.get(name, ANSWERS)[0] for name in (version, NEWEST))
    gone = {path.removeprefix("digits/") for path in set(engine_files(old)) - set(engine_files(new))}
    assert gone - TABLE.keys() == set()


def test_the_page_on_the_engine_says_the_same():
    page = (ROOT / "docs/engine.md").read_text(encoding="utf-8").partition("## Files that moved")[2]
    rows = re.findall(r"^\| `(.+?)` \| (.+) \|$", page, re.MULTILINE)
    shown = {f"engine/{old}": [f"engine/{path}" for path in re.findall(r"`([\w/]+\.py)`", cell)] for old, cell in rows}
    assert {old: places[:1] for old, places in shown.items()} == {old: TABLE[old][:1] for old in shown}
    assert all(set(places) <= set(TABLE[old]) for old, places in shown.items())
    assert {old for old, places in TABLE.items() if old not in places} == shown.keys() | {"engine/explain.py"}


@pytest.mark.parametrize("share", [0.15, 0.5, 0.85])
@pytest.mark.parametrize("version", versions())
def test_one_edit_in_every_file_of_the_engine(rendered: Versions, tmp_path: Path, version: str, share: float):
    """The edit lies after this share of the lines, at the next line with code or text."""
    project = shutil.copytree(rendered.get(version, ANSWERS)[0], tmp_path / "digits")
    git(project, "init", "--quiet")
    commit(project)
    new = set(engine_files(rendered.get(NEWEST, ANSWERS)[0]))
    marks = {}
    for number, path in enumerate(engine_files(project)):
        lines = (project / path).read_text(encoding="utf-8").splitlines()
        place = int(share * (len(lines) - 1))
        while place < len(lines) - 1 and not re.search(r"\w", lines[place]):
            place += 1
        lines[place] += f" # owner-{number}-0"
        marks[path] = f" # owner-{number}-0"
        (project / path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert len(marks) > 60
    commit(project)

    merged = checked_update(project, rendered, tmp_path / "scratch")

    after = contents(merged.scratch, merged.tree)
    texts = {path: text.decode() for path, text in after.items() if path.endswith(".py")}
    for path, mark in marks.items():
        (now,) = (other for other, text in texts.items() if mark in text)
        places = [f"digits/{place}" for place in TABLE.get(path.removeprefix("digits/"), [])] or [path]
        # Its code is now in a file that there was already, or that began as another file.
        began = next((old for old, to in TABLE.items() if to[:1] == [places[0].removeprefix("digits/")]), "")
        is_other = f"digits/{began}" in marks and f"digits/{began}" != path
        has_joined = path not in new and (places[0] in marks or is_other)
        if now in merged.conflicts:
            assert now == (path if has_joined else places[0])
            assert "<<<<<<<" in texts[now] or has_joined
            assert all(place == now or place in merged.conflicts[now] for place in places)
        else:
            assert now in places
            assert now == places[0] or now in merged.notes
            assert not has_joined or now in merged.notes
    # Some edits arrive even if a version rewrites nearly every line.
    assert len(marks) - len(merged.conflicts) >= 5


def test_a_file_of_several_arrives_without_one_of_them(rendered: Versions, tmp_path: Path):
    """`log/report.py` was `report.py`, and also holds code of `profiling.py`, which the owner deleted."""
    project = shutil.copytree(rendered.get("0.2.0", ANSWERS)[0], tmp_path / "digits")
    git(project, "init", "--quiet")
    (project / "digits/engine/profiling.py").unlink()
    commit(project)
    merged = checked_update(project, rendered, tmp_path / "scratch")
    assert ("moved", "digits/engine/report.py → digits/engine/log/report.py") in merged.rows
    assert "deleted or moved digits/engine/profiling.py" in merged.notes["digits/engine/log/report.py"]


def test_a_file_that_the_owner_moved_and_whose_code_moved(rendered: Versions, tmp_path: Path):
    project = shutil.copytree(rendered.get("0.2.0", ANSWERS)[0], tmp_path / "digits")
    git(project, "init", "--quiet")
    commit(project)
    git(project, "mv", "digits/engine/profiling.py", "digits/mine.py")
    commit(project)
    merged = checked_update(project, rendered, tmp_path / "scratch")
    assert merged.conflicts == {}
    (place,) = TABLE["engine/profiling.py"]
    assert merged.notes["digits/mine.py"].endswith(f"Yours stays. Its code is now in digits/{place}.")
