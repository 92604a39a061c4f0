"""Owners format the files with settings of their own, or have other line endings: this alone never conflicts."""

import shutil
from pathlib import Path

import pytest
from helpers.formatting import SETTINGS, format_with
from helpers.releases import NEWEST, commit, git, versions
from helpers.updating import Versions, checked_update, contents

ANSWERS = {"package_name": "digits"}


@pytest.fixture(scope="module")
def rendered(all_versions: Versions) -> Versions:
    return all_versions


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("version", versions())
def test_formatted_files_are_merged_and_stay_formatted(rendered: Versions, tmp_path: Path, version: str, settings: str):
    project = shutil.copytree(rendered.get(version, ANSWERS)[0], tmp_path / "digits")
    git(project, "init", "--quiet")
    commit(project)
    format_with(settings, project)
    with open(project / "digits/engine/losses.py", "a", encoding="utf-8") as file:
        file.write("\n\nMINE = 1\n")
    commit(project)
    edited = git(project, "diff", "--name-only", "HEAD~1").split()
    assert len(edited) > 20

    merged = checked_update(project, rendered, tmp_path / "scratch")

    assert merged.conflicts == {}
    new, is_owned = rendered.get(NEWEST, ANSWERS)
    wanted = shutil.copytree(new, tmp_path / "wanted")
    format_with(settings, wanted)
    after = contents(merged.scratch, merged.tree)
    assert b"\nMINE = 1\n" in after["digits/engine/losses.py"]
    for path in (path.relative_to(wanted).as_posix() for path in wanted.rglob("*.py")):
        if not is_owned(path) and not path.endswith("/losses.py"):
            assert after[path].decode() == (wanted / path).read_text(encoding="utf-8"), path


@pytest.mark.parametrize("settings", ["line-length = 79"])
def test_files_that_nobody_formatted_stay_as_the_template_has_them(rendered: Versions, tmp_path: Path, settings: str):
    version = versions()[-1]
    project = shutil.copytree(rendered.get(version, ANSWERS)[0], tmp_path / "digits")
    git(project, "init", "--quiet")
    project_file = project / "pyproject.toml"
    project_file.write_text(project_file.read_text().replace("line-length = 100", settings))
    commit(project)
    merged = checked_update(project, rendered, tmp_path / "scratch")
    assert merged.conflicts == {}
    new = rendered.get(NEWEST, ANSWERS)[0]
    assert (
        contents(merged.scratch, merged.tree)["digits/engine/loop.py"] == (new / "digits/engine/loop.py").read_bytes()
    )
