"""Where a project can lie: in a worktree, a bigger repository, a shallow clone, under any settings of git."""

import shutil

from helpers import snippets
from helpers.releases import commit, git
from helpers.small_template import OLD, PACKAGE, changed
from helpers.updating import edit, state, write


def test_from_a_folder_of_the_project_and_in_a_worktree(project, ostinato, tmp_path):
    git(project, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    before = state(project)
    result = ostinato("update", cwd=tmp_path / "side" / "configs" / "optimizer")
    assert result.code == 0, result
    assert (tmp_path / "side/configs/scheduler/new.yaml").exists()
    assert git(tmp_path / "side", "status", "--porcelain") == ""
    assert state(project) == before


def test_a_project_in_a_folder_of_a_bigger_repository(project, ostinato, tmp_path):
    whole = tmp_path / "whole"
    shutil.copytree(project, whole / "inner" / "digits", ignore=shutil.ignore_patterns(".git"))
    write(whole, {"other.txt": "other\n", "digits/engine/loop.py": "not the project's\n"})
    git(whole, "init", "--quiet", "--initial-branch=main")
    commit(whole)
    result = ostinato("update", cwd=whole / "inner" / "digits")
    assert result.code == 0, result
    inner = whole / "inner" / "digits"
    assert "line_20 = 'new'" in (inner / "digits/engine/loop.py").read_text()
    assert not (inner / "digits/engine/gone.py").exists()
    assert (whole / "digits/engine/loop.py").read_text() == "not the project's\n"
    assert git(whole, "status", "--porcelain") == ""
    names = git(whole, "diff", "--name-only", "HEAD~1").split()
    assert all(name.startswith("inner/digits/") for name in names)


def test_a_shallow_clone_with_a_detached_head(project, ostinato, tmp_path):
    edit(project, {"digits/task.py": "mine\n"})
    git(tmp_path, "clone", "--quiet", "--depth=1", project.as_uri(), "shallow")
    git(tmp_path / "shallow", "switch", "--quiet", "--detach")
    assert ostinato("update", cwd=tmp_path / "shallow").code == 0
    assert git(tmp_path / "shallow", "status", "--porcelain") == ""


def test_the_users_git_settings_do_not_matter(project, ostinato, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(snippets.SNIPPETS / "gitconfig"))
    edit(project, {"digits/engine/old_name.py": changed(OLD[f"{PACKAGE}/engine/old_name.py"], 3, "name_3 = 'mine'")})
    write(project, {"untracked.txt": "x"})
    assert "untracked.txt is untracked" in ostinato("update")
    (project / "untracked.txt").unlink()
    assert ostinato("update").code == 0
    assert "name_3 = 'mine'" in (project / "digits/engine/new_name.py").read_text()
    assert b"\r" not in (project / "digits/engine/loop.py").read_bytes()
