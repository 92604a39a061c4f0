"""`ostinato update` merges the template's new version with the owner's edits, and leaves the owner's files alone."""

import subprocess
import sys

import pytest
from helpers.releases import commit, git
from helpers.small_template import LINES, OLD, PACKAGE, USERS, changed
from helpers.updating import edit, state

from ostinato import merge
from ostinato.render import ANSWERS, RENDERED, ownership, rendered


def test_what_was_not_edited_is_as_freshly_rendered(project, ostinato, source, tmp_path):
    before = {path: (project / path).read_text() for path in USERS}
    result = ostinato("update")
    assert result.code == 0, result
    fresh = rendered(str(source), "0.2.0", {"package_name": "digits", "project_name": "Digits"}, tmp_path / "fresh")
    names = set(git(project, "ls-files").split()) - {RENDERED}
    assert {path.relative_to(fresh).as_posix() for path in fresh.rglob("*") if path.is_file()} == names | {
        "digits/models/another.py"  # in a folder of the user's
    }
    for path in names:
        text = before[path] if path in USERS else (fresh / path).read_text()
        assert (project / path).read_text() == text, path
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "log", "--format=%an %s", "HEAD~1..").strip() == "Owner Update the template from 0.1.0 to 0.2.0"
    assert "- a new loop" in result
    assert "all of it" not in result
    for line in (
        "arrived   configs/scheduler/new.yaml",
        "moved     digits/engine/old_name.py → digits/engine/new_name.py",
    ):
        assert line in result
    assert "replaced  digits/engine/loop.py" in result
    assert "removed   digits/engine/gone.py" in result
    assert not list((tmp_path / "temporary").iterdir())
    assert not list((project / ".git").glob("ostinato*.json"))


def test_the_second_update_finds_nothing(project, ostinato):
    assert ostinato("update").code == 0
    before = state(project)
    result = ostinato("update")
    assert (result.code, result.strip()) == (0, "The project is at 0.2.0, and there is nothing to update.")
    assert state(project) == before


def test_what_is_the_users_stays_however_it_was_changed(project, ostinato):
    edit(
        project,
        {"digits/task.py": "mine\n", "configs/train.yaml": None, "digits/models/net.py": None, "tests/t.py": "x\n"},
    )
    assert ostinato("update").code == 0
    assert (project / "digits/task.py").read_text() == "mine\n"
    assert not (project / "configs/train.yaml").exists()
    assert not any((project / "digits/models").glob("*"))
    assert (project / "tests/t.py").read_text() == "x\n"


def test_edits_of_the_templates_files_are_merged(project, ostinato):
    loop = changed(OLD[f"{PACKAGE}/engine/loop.py"], 3, "line_3 = 'mine'")
    dependencies = (project / "pyproject.toml").read_text().replace('    "torch",\n', '    "torch",\n    "timm",\n')
    edit(project, {"digits/engine/loop.py": loop, "pyproject.toml": dependencies})
    result = ostinato("update")
    assert result.code == 0, result
    assert "merged    digits/engine/loop.py" in result
    text = (project / "digits/engine/loop.py").read_text()
    assert "line_3 = 'mine'" in text
    assert "line_20 = 'new'" in text
    assert '"timm"' in (project / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("word", "old", "mine", "result"),
    [
        ("line", "loop", "my_loop", "my_loop"),
        ("name", "old_name", "old_name", "new_name"),
        ("name", "old_name", "my_name", "my_name"),
    ],
    ids=["the user moved", "the template renamed", "both"],
)
def test_an_edit_of_a_file_that_was_moved_is_merged(project, ostinato, word, old, mine, result):
    engine = project / "digits/engine"
    (engine / f"{old}.py").rename(engine / f"{mine}.py")
    edit(project, {f"digits/engine/{mine}.py": changed(LINES.replace("line", word), 3, f"{word}_3 = 'mine'")})
    said = ostinato("update")
    assert said.code == 0, said
    text = (engine / f"{result}.py").read_text()
    assert f"{word}_3 = 'mine'" in text
    assert f"{word}_20 = 'new'" in text
    of_the_word = [path.stem for path in engine.glob("*.py") if f"{word}_3" in path.read_text()]
    assert of_the_word == [result]
    assert ("you moved digits/engine/old_name.py here, and the new version moved it" in said) == (result == "my_name")


def test_a_file_that_was_only_moved_gets_the_change(project, ostinato):
    for old, new in (("loop", "my_loop"), ("old_name", "my_name"), ("untouched", "mine")):
        git(project, "mv", f"digits/engine/{old}.py", f"digits/engine/{new}.py")
    commit(project)
    assert ostinato("update").code == 0
    texts = {name: (project / f"digits/engine/{name}.py").read_text() for name in ("my_loop", "my_name", "mine")}
    assert "line_20 = 'new'" in texts["my_loop"]
    assert "name_20 = 'new'" in texts["my_name"]
    assert texts["mine"] == LINES.replace("line", "same")


def test_an_edit_of_a_file_that_git_does_not_recognise_is_merged(project, ostinato):
    text = changed(LINES.replace("line", "part"), 1, "part_1 = 'mine'")
    edit(project, {"digits/engine/rewritten.py": text})
    said = ostinato("update")
    assert said.code == 0, said
    assert "part_1 = 'mine'" in (project / "digits/engine/folder/first.py").read_text()
    assert "moved     digits/engine/rewritten.py → digits/engine/folder/first.py" in said
    assert not (project / "digits/engine/rewritten.py").exists()


def test_an_edit_of_code_that_went_to_another_file_is_merged_there(project, ostinato):
    edit(project, {"digits/engine/rewritten.py": changed(LINES.replace("line", "part"), 25, "part_25 = 'mine'")})
    said = ostinato("update")
    assert said.code == 0, said
    assert "digits/engine/folder/second.py: your change of digits/engine/rewritten.py is here" in said
    assert "part_24 = 24\npart_25 = 'mine'\npart_26 = 26\n" in (project / "digits/engine/folder/second.py").read_text()
    assert "mine" not in (project / "digits/engine/folder/first.py").read_text()


def test_an_edit_that_would_be_lost_on_its_way_is_a_conflict(project, ostinato, monkeypatch):
    edit(project, {"digits/engine/rewritten.py": changed(LINES.replace("line", "part"), 25, "part_25 = 'mine'")})
    monkeypatch.setattr(merge, "carried", lambda hunks, base, texts, own: dict(texts))
    said = ostinato("update")
    assert said.code == 1
    assert "Code of digits/engine/rewritten.py is now in digits/engine/folder/second.py" in said


def test_a_file_that_the_user_moved_to_where_the_template_moves_another_stays(project, ostinato):
    (project / "digits/engine/loop.py").rename(project / "digits/engine/new_name.py")
    edit(project, {"digits/engine/new_name.py": changed(LINES, 3, "line_3 = 'mine'")})
    said = ostinato("update")
    assert "digits/engine/new_name.py: you have your own" in said
    text = (project / "digits/engine/new_name.py").read_text()
    assert text == changed(changed(LINES, 3, "line_3 = 'mine'"), 20, "line_20 = 'new'")


@pytest.mark.parametrize(("old", "line"), [("loop.py", "line_20 = 'new'"), ("gone.py", "gone_20 = 20")])
def test_a_file_that_the_user_moved_to_where_a_new_one_comes_keeps_its_text(project, ostinato, old, line):
    """Also if the user's settings of the formatter have the new files formatted."""
    (project / "digits/engine/folder").mkdir()
    git(project, "mv", f"digits/engine/{old}", "digits/engine/folder/added.py")
    edit(project, {"ruff.toml": "line-length = 79\n"})
    result = ostinato("update")
    assert result.code == 0, result
    assert line in (project / "digits/engine/folder/added.py").read_text()
    assert "digits/engine/folder/added.py: you have your own, and the new version brings one" in result


def test_a_value_beside_a_reworded_comment_is_merged(project, ostinato):
    edit(project, {"configs/model/net.yaml": "width: 64 # channels\ndepth: 2 # blocks\n"})
    assert ostinato("update").code == 0
    text = (project / "configs/model/net.yaml").read_text()
    assert text == "width: 64 # channels of a layer\ndepth: 2 # number of blocks\n"


def test_a_comment_that_both_reworded_is_a_conflict(project, ostinato):
    edit(project, {"configs/model/net.yaml": "width: 64 # my channels\ndepth: 2 # blocks\n"})
    assert "configs/model/net.yaml: you and the template changed the same lines" in ostinato("update")


def test_a_deleted_file_that_the_template_renamed_stays_deleted(project, ostinato):
    edit(project, {"digits/engine/rewritten.py": None})
    said = ostinato("update")
    assert said.code == 0, said
    assert "digits/engine/folder/first.py: you deleted or moved digits/engine/rewritten.py" in said
    assert not (project / "digits/engine/folder/first.py").exists()


def test_a_file_moved_into_a_folder_of_the_users_is_the_users(project, ostinato):
    git(project, "mv", "digits/engine/loop.py", "digits/models/loop.py")
    commit(project)
    result = ostinato("update")
    assert result.code == 0
    assert "digits/engine/loop.py: you deleted or moved it, and the template changed it" in result
    assert (project / "digits/models/loop.py").read_text() == LINES


def test_a_file_that_the_user_deleted_stays_deleted_and_is_reported(project, ostinato):
    edit(project, {"digits/engine/loop.py": None, "digits/engine/untouched.py": None})
    result = ostinato("update")
    assert result.code == 0
    assert "digits/engine/loop.py: you deleted or moved it" in result
    assert "untouched.py" not in result
    assert not (project / "digits/engine/loop.py").exists()
    assert not (project / "digits/engine/untouched.py").exists()


def test_a_file_of_the_users_where_the_template_brings_one_stays(project, ostinato):
    edit(project, {"configs/scheduler/new.yaml": "mine: 1\n"})
    result = ostinato("update")
    assert result.code == 0
    assert "configs/scheduler/new.yaml: you have your own" in result
    assert (project / "configs/scheduler/new.yaml").read_text() == "mine: 1\n"
    assert git(project, "show", "refs/ostinato/template:configs/scheduler/new.yaml") == "the: template's\n"


def test_a_small_file_of_the_users_is_not_taken_for_a_moved_one(project, ostinato):
    """git would take this file for a renamed adamw.yaml, and change it."""
    mine = "".join(OLD["configs/optimizer/adamw.yaml"].splitlines(keepends=True)[:22]) + "mine: 1\n"
    edit(project, {"configs/optimizer/adamw.yaml": None, "configs/optimizer/mine.yaml": mine})
    result = ostinato("update")
    assert result.code == 0
    assert (project / "configs/optimizer/mine.yaml").read_text() == mine
    assert "configs/optimizer/adamw.yaml: you deleted or moved it" in result


def test_crlf_is_kept_and_does_not_conflict(project, ostinato):
    (project / ".gitattributes").write_text("* -text\n")
    (project / "digits/engine/loop.py").write_bytes(changed(LINES, 3, "line_3 = 'mine'").replace("\n", "\r\n").encode())
    commit(project)
    result = ostinato("update")
    assert result.code == 0, result
    expected = changed(changed(LINES, 3, "line_3 = 'mine'"), 20, "line_20 = 'new'")
    assert (project / "digits/engine/loop.py").read_bytes() == expected.replace("\n", "\r\n").encode()


def test_ownership_is_what_copier_leaves_out_of_an_update(source, tmp_path):
    owned = ownership(source, {"package_name": "digits"})
    assert all(owned(path) for path in [*USERS, "digits/models/deep/x.py", "configs/experiment/mine.yaml"])
    for path in (
        "digits/engine/loop.py",
        "train.py",
        "configs/model/mine.yaml",
        "tests/engine/x.py",
        "x/task.py",
        ANSWERS,
    ):
        assert not owned(path), path


def test_plain_copier_updates_too(project, ostinato):
    command = [sys.executable, "-m", "copier", "update", "--defaults", "--quiet"]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    assert "line_20 = 'new'" in (project / "digits/engine/loop.py").read_text()
    assert (project / "digits/task.py").read_text() == LINES
    commit(project)
    assert "nothing to update" in ostinato("update")
