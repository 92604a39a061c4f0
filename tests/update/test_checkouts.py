"""Where a project can lie: in a worktree, a bigger repository, a shallow clone, under any settings of git."""

import json
import os
import shutil
from pathlib import Path

import pytest
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


def test_a_package_that_moved_into_src(project, ostinato):
    """New, changed, renamed and deleted files of the template follow. The owner's files are still the owner's."""
    (project / "src").mkdir()
    git(project, "mv", "digits", "src/digits")
    edit(project, {"src/digits/engine/loop.py": changed(OLD[f"{PACKAGE}/engine/loop.py"], 3, "line_3 = 'mine'")})
    edit(project, {"src/digits/task.py": "mine\n"})
    homes = []
    assert ostinato("update", check=lambda trees, say: homes.append(trees.home)).code == 0
    assert homes == [Path("src")]
    assert not (project / "digits").exists()
    package = project / "src/digits"
    text = (package / "engine/loop.py").read_text()
    assert ("line_3 = 'mine'" in text, "line_20 = 'new'" in text) == (True, True)
    assert (package / "engine/folder/added.py").exists()
    assert (package / "engine/new_name.py").exists()
    assert not (package / "engine/gone.py").exists()
    assert (package / "task.py").read_text() == "mine\n"
    assert not (package / "models/another.py").exists()
    assert (project / "configs/scheduler/new.yaml").exists()


def test_configs_that_moved(project, ostinato):
    git(project, "mv", "configs", "settings")
    commit(project)
    places = []
    assert ostinato("update", check=lambda trees, say: places.append(trees.configs)).code == 0
    assert places == ["settings"]
    assert (project / "settings/scheduler/new.yaml").exists()


def test_an_engine_that_moved(project, ostinato):
    (project / "vendored").mkdir()
    git(project, "mv", "digits/engine", "vendored/core")
    commit(project)
    assert ostinato("update").code == 0
    assert not (project / "digits/engine").exists()
    assert "line_20 = 'new'" in (project / "vendored/core/loop.py").read_text()
    assert (project / "vendored/core/folder/added.py").exists()


@pytest.mark.parametrize("kind", ["submodule", "link"])
def test_an_engine_that_lies_outside_of_the_project(project, ostinato, source, kind):
    git(project, "rm", "-r", "--quiet", "digits/engine")
    if kind == "submodule":
        git(project, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(source), "digits/engine")
    else:
        (project / "digits/engine").symlink_to(source)
    commit(project)
    result = ostinato("update")
    assert result.code == 0, result
    assert "digits/engine/folder/added.py: you have your own, and the new version brings one" in result
    assert git(project, "ls-files", "digits/engine") == "digits/engine\n"


def test_links_for_data_and_runs(project, ostinato, tmp_path):
    """Ignored, or not because a pattern such as `/runs/` matches no link, or committed."""
    for name in ("data", "runs", "more", "outputs"):
        write(tmp_path / "disk" / name, {"file.txt": name})
    edit(project, {".gitignore": "/runs/\n/data/\n"})
    (project / "data").symlink_to(tmp_path / "disk/data")
    (project / "runs").symlink_to("../disk/runs")
    (project / "more").symlink_to("../disk/more")
    (project / "outputs").symlink_to(tmp_path / "disk/outputs")
    git(project, "add", "more", "outputs")
    git(project, "commit", "--quiet", "--message=Links")
    seen = []

    def look(trees, say):
        for folder in (trees.before, trees.after):
            seen.append([(folder / name / "file.txt").is_file() for name in ("data", "more", "runs", "outputs")])

    before = state(project)
    assert ostinato("update", "--dry-run", check=look).code == 0
    assert state(project) == before
    assert ostinato("update", check=look).code == 0
    assert seen == 4 * [[True, True, False, False]]
    assert (project / "data/file.txt").read_text() == "data"
    assert (project / "runs").is_symlink()


def test_what_git_keeps_elsewhere_is_seen_by_the_checks(project, ostinato, source):
    """Files of LFS, whose filter would fetch them, and a submodule with changes of its own."""
    edit(project, {".gitattributes": "*.bin filter=lfs\n*.xz filter=lfs\n", "data/large.bin": "the pointer\n"})
    clean = "cat > /dev/null; echo the pointer"
    for key, value in {"smudge": "false", "clean": clean, "required": "true"}.items():
        git(project, "config", f"filter.lfs.{key}", value)
    git(project, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(source), "library")
    git(project, "commit", "--quiet", "--message=Library")
    write(project, {"data/large.bin": "the content\n", "library/untracked.txt": "mine"})
    seen = []

    def look(trees, say):
        for folder in (trees.before, trees.after):
            seen.append(((folder / "data/large.bin").read_text(), (folder / "library/copier.yml").is_file()))

    result = ostinato("update", check=look)
    assert result.code == 0, result
    assert seen == 2 * [("the content\n", True)]
    assert (project / "library/untracked.txt").read_text() == "mine"


def test_others_work_in_a_bigger_repository_is_no_obstacle(project, ostinato, tmp_path):
    whole = tmp_path / "whole"
    shutil.copytree(project, whole / "digits", ignore=shutil.ignore_patterns(".git"))
    git(whole, "init", "--quiet", "--initial-branch=main")
    commit(whole)
    edit(whole, {"other.txt": "a colleague's\n"})
    write(whole, {"notes.txt": "a colleague's", "other.txt": "not committed\n"})
    git(whole, "add", "notes.txt")  # taking back an update would unstage it
    assert "notes.txt has changes that are not committed" in ostinato("update", cwd=whole / "digits")
    git(whole, "reset", "--quiet", "notes.txt")
    assert ostinato("update", cwd=whole / "digits").code == 0
    assert git(whole, "status", "--porcelain") == " M other.txt\n?? notes.txt\n"


@pytest.mark.parametrize("filtered", [[], ["--filter=blob:none"], ["--filter=tree:0"]])
def test_a_sparse_and_partial_clone(project, ostinato, tmp_path, filtered):
    whole = tmp_path / "whole"
    shutil.copytree(project, whole / "digits", ignore=shutil.ignore_patterns(".git"))
    write(whole, {"other/large.txt": "not wanted\n", "other/deep/file.txt": "not wanted\n"})
    git(whole, "init", "--quiet", "--initial-branch=main")
    git(whole, "config", "uploadpack.allowFilter", "true")
    commit(whole)
    git(tmp_path, "clone", "--quiet", "--sparse", "--no-local", *filtered, whole.as_uri(), "clone")
    clone = tmp_path / "clone"
    git(clone, "sparse-checkout", "set", "digits")
    result = ostinato("update", cwd=clone / "digits")
    assert result.code == 0, result
    assert "line_20 = 'new'" in (clone / "digits/digits/engine/loop.py").read_text()
    assert not (clone / "other").exists()
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "diff", "--name-only", "HEAD~1", "--", "other") == ""


def test_the_users_git_settings_do_not_matter(project, ostinato, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(snippets.SNIPPETS / "gitconfig"))
    edit(project, {"digits/engine/old_name.py": changed(OLD[f"{PACKAGE}/engine/old_name.py"], 3, "name_3 = 'mine'")})
    write(project, {"untracked.txt": "x"})
    assert "untracked.txt is untracked" in ostinato("update")
    (project / "untracked.txt").unlink()
    assert ostinato("update").code == 0
    assert "name_3 = 'mine'" in (project / "digits/engine/new_name.py").read_text()
    assert b"\r" not in (project / "digits/engine/loop.py").read_bytes()


def test_line_endings_that_only_the_users_files_have(project, ostinato, tmp_path):
    """Without .gitattributes, core.autocrlf decides. git compares a file whose time changed."""
    edit(project, {".gitattributes": None})
    git(tmp_path, "clone", "--quiet", "--config", "core.autocrlf=true", str(project), "clone")
    clone = tmp_path / "clone"
    for path in clone.glob("digits/engine/*.py"):
        path.unlink()
    git(clone, "-c", "core.autocrlf=true", "reset", "--quiet", "--hard")
    for path in clone.glob("digits/engine/*.py"):
        assert not path.stat().st_size or b"\r\n" in path.read_bytes()
        os.utime(path, (1, 1))
    result = ostinato("update", cwd=clone)
    assert result.code == 0, result
    assert b"line_20 = 'new'\r\n" in (clone / "digits/engine/loop.py").read_bytes()
    assert b"\r" not in git(clone, "show", "HEAD:digits/engine/loop.py").encode()


def test_a_killed_update_of_a_sparse_checkout_is_undone(project, ostinato, tmp_path):
    git(project, "status")  # after the copy of the project
    git(project, "sparse-checkout", "set", "digits")
    assert not (project / "configs").exists()
    head = git(project, "rev-parse", "HEAD").strip()
    before = state(project)
    assert ostinato("update").code == 0
    note = {"temporary": str(tmp_path / "gone"), "head": head, "commit": git(project, "rev-parse", "HEAD").strip()}
    git(project, "update-ref", "HEAD", head)  # the last that git does, and it was killed before
    write(project, {".git/ostinato-update.json": json.dumps(note)})
    assert "The killed update is undone" in ostinato("update", "--abort")
    assert state(project) == before
