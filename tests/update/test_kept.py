"""An update compares with what was rendered, whatever happened to the template's repository since."""

import re
import shutil
from pathlib import Path

import pytest
from helpers.releases import commit, git
from helpers.small_template import LINES, PACKAGE, changed
from helpers.updating import answers_of, edit, write

from ostinato import render
from ostinato.render import ANSWERS, RENDERED, packed, unpacked

LOOP = "digits/engine/loop.py"


@pytest.fixture
def moved(source: Path, tmp_path: Path) -> Path:
    """The template's repository at another address."""
    return shutil.copytree(source, tmp_path / "moved")


def go_to(project: Path, address: Path) -> None:
    text = (project / ANSWERS).read_text()
    edit(project, {ANSWERS: re.sub("(?m)^_src_path: .*$", f"_src_path: {address}", text)})


def without_history(template: Path) -> None:
    """Only the last version, 0.3.0, is left."""
    shutil.rmtree(template / ".git")
    git(template, "init", "--quiet", "--initial-branch=main")
    write(template / "template", {f"{PACKAGE}/engine/loop.py": changed(LINES, 30, "line_30 = 'newest'")})
    commit(template, "0.3.0")


def test_an_update_needs_neither_the_old_version_nor_the_old_address(project, ostinato, moved):
    edit(project, {LOOP: changed(LINES, 3, "line_3 = 'mine'")})
    assert ostinato("update").code == 0
    without_history(moved)
    go_to(project, moved)
    result = ostinato("update")
    assert result.code == 0, result
    text = (project / LOOP).read_text()
    assert text == changed(changed(LINES, 3, "line_3 = 'mine'"), 30, "line_30 = 'newest'")
    assert str(moved) in (project / ".github/workflows/update.yml").read_text()


def test_the_project_keeps_the_files_as_rendered(project, ostinato, source, tmp_path):
    edit(project, {LOOP: changed(LINES, 3, "line_3 = 'mine'")})
    assert ostinato("update").code == 0
    kept = unpacked((project / RENDERED).read_bytes(), tmp_path / "kept")
    assert (kept / LOOP).read_text() == changed(LINES, 20, "line_20 = 'new'")
    assert (kept / "digits/task.py").read_text() == "the template's\n"
    assert packed(kept) == (project / RENDERED).read_bytes()
    answers = answers_of(project)
    assert answers["_commit_id"] == git(source, "rev-parse", "0.2.0^{commit}").strip()
    assert answers["_commit"] == "0.2.0"


def test_a_new_address_arrives_in_all_files(project, ostinato, moved):
    go_to(project, moved)
    assert ostinato("update").code == 0
    assert str(moved) in (project / ".github/workflows/update.yml").read_text()
    assert "nothing to update" in ostinato("update")
    go_to(project, moved.rename(moved.with_name("again")))
    assert ostinato("update").code == 0  # to the same version
    assert str(moved.with_name("again")) in (project / ".github/workflows/update.yml").read_text()
    assert "nothing to update" in ostinato("update")


def test_a_tag_that_moved_changes_nothing(project, ostinato, moved):
    git(moved, "tag", "--force", "0.1.0", "0.2.0^{commit}")
    go_to(project, moved)
    edit(project, {LOOP: changed(LINES, 3, "line_3 = 'mine'")})
    result = ostinato("update")
    assert result.code == 0, result
    assert (project / LOOP).read_text() == changed(changed(LINES, 3, "line_3 = 'mine'"), 20, "line_20 = 'new'")


def test_a_version_whose_commit_is_gone_is_named(project, ostinato, moved):
    """A project that has not been updated yet has only the tag to go by."""
    without_history(moved)
    git(moved, "tag", "0.1.0")
    go_to(project, moved)
    result = ostinato("update")
    assert f"no longer has the commit {answers_of(project)['_commit_id'][:12]}" in result or result.code == 0
    assert "0.1.0 is rendered as it is now" in result


@pytest.mark.parametrize("damage", ["empty", "no archive", "cut off", "no text", "too large"])
def test_a_damaged_archive_is_rendered_again(project, ostinato, monkeypatch, tmp_path, damage):
    assert ostinato("update").code == 0
    content = (project / RENDERED).read_bytes()
    if damage == "no text":
        (unpacked(content, tmp_path / "damaged") / ANSWERS).write_bytes(b"package_name: \xff\n")
    elif damage == "too large":
        monkeypatch.setattr(render, "LARGEST", 1000)
    other = {"empty": b"", "no archive": b"x", "cut off": content[: len(content) // 2], "too large": content}
    (project / RENDERED).write_bytes(other[damage] if damage in other else packed(tmp_path / "damaged"))
    commit(project)
    assert ostinato("update", "--to", "0.3.0rc1").code == 0
    assert (project / LOOP).read_text() == LINES


def test_a_package_that_was_renamed_since(project, ostinato):
    assert ostinato("update").code == 0
    git(project, "mv", "digits", "glyphs")
    edit(project, {"glyphs/engine/loop.py": changed((project / "glyphs/engine/loop.py").read_text(), 3, "mine = 3")})
    edit(project, {ANSWERS: (project / ANSWERS).read_text().replace("digits", "glyphs")})
    result = ostinato("update", "--to", "0.3.0rc1")
    assert result.code == 0, result
    assert (project / "glyphs/engine/loop.py").read_text() == changed(LINES, 3, "mine = 3")
    assert not (project / "digits").exists()


def test_an_archive_of_another_version_is_not_used(project, ostinato):
    """As after `copier update`, which does not renew it."""
    assert ostinato("update").code == 0
    archive = (project / RENDERED).read_bytes()
    assert ostinato("update", "--to", "0.3.0rc1").code == 0
    (project / RENDERED).write_bytes(archive)
    edit(project, {LOOP: changed(LINES, 3, "line_3 = 'mine'")})
    result = ostinato("update", "--to", "0.3.0rc1", "--data", "ci=none")
    assert result.code == 0, result
    assert (project / LOOP).read_text() == changed(LINES, 3, "line_3 = 'mine'")
