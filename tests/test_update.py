"""`ostinato update` on a small template with this template's copier.yml: what it merges, reports and refuses.

test_update_broken.py tests with the whole template that a broken version is stopped.
"""

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import snippets
from helpers.releases import commit, git
from helpers.template import ROOT
from helpers.updating import edit, state, write

from ostinato import __main__, changelog, update
from ostinato.check import _run, find_python
from ostinato.errors import Stopped
from ostinato.render import ANSWERS, as_version, ownership, rendered

PACKAGE = "{{ package_name }}"
LINES = "".join(f"line_{n} = {n}\n" for n in range(40))
"""A file that is long enough for edits in different places."""
OLD = {
    f"{PACKAGE}/__init__.py": "",
    f"{PACKAGE}/task.py": LINES,
    f"{PACKAGE}/losses.py": "",
    f"{PACKAGE}/models/net.py": LINES,
    f"{PACKAGE}/engine/__init__.py": "",
    f"{PACKAGE}/engine/loop.py": LINES,
    f"{PACKAGE}/engine/old_name.py": LINES.replace("line", "name"),
    f"{PACKAGE}/engine/gone.py": LINES.replace("line", "gone"),
    f"{PACKAGE}/engine/rewritten.py": LINES.replace("line", "part"),
    f"{PACKAGE}/engine/untouched.py": LINES.replace("line", "same"),
    "configs/train.yaml": "lr: 0.1\n",
    "configs/experiment/one.yaml": "lr: 0.2\n",
    "configs/optimizer/adamw.yaml": LINES.replace(" =", ":"),
    "tests/test_task.py": LINES,
    "tests/engine/test_loop.py": LINES,
    "README.md": "# Mine\n",
    "train.py.jinja": f"import {PACKAGE}\n{LINES}",
    "pyproject.toml": f'[project]\ndependencies = [\n    "hydra",\n    "torch",\n]\n\n[tool]\n{LINES}',
}
NEW = OLD | {
    f"{PACKAGE}/task.py": "the template's\n",
    f"{PACKAGE}/models/net.py": "the template's\n",
    f"{PACKAGE}/models/another.py": "the template's\n",
    f"{PACKAGE}/engine/loop.py": LINES.replace("line_20 = 20", "line_20 = 'new'"),
    f"{PACKAGE}/engine/new_name.py": LINES.replace("line", "name").replace("name_20 = 20", "name_20 = 'new'"),
    f"{PACKAGE}/engine/folder/added.py": "the template's\n",
    f"{PACKAGE}/engine/folder/first.py": "".join(f"part_{n} = {n}\n" for n in range(5)) + "the template's\n" * 40,
    f"{PACKAGE}/engine/folder/second.py": "".join(f"part_{n} = {n}\n" for n in range(20, 30)),
    "configs/train.yaml": "lr: 0.3\n",
    "configs/optimizer/adamw.yaml": LINES.replace(" =", ":").replace("line_20: 20", "line_20: new"),
    "configs/scheduler/new.yaml": "the: template's\n",
    "tests/test_task.py": "the template's\n",
    "README.md": "the template's\n",
    "pyproject.toml": OLD["pyproject.toml"].replace("line_20 = 20", "line_20 = 'new'"),
}
for name in ("old_name", "gone", "rewritten"):
    del NEW[f"{PACKAGE}/engine/{name}.py"]
MOVED = "engine/rewritten.py: [engine/folder/first.py, engine/folder/second.py]\n"
CHANGES = """# Changelog

## Unreleased

- nothing yet

## 0.2.0 (2030-02-01)

- a new loop

## 0.1.0

- all of it
"""
USERS = ["README.md", "configs/experiment/one.yaml", "configs/train.yaml", "digits/losses.py", "digits/models/net.py"]
USERS += ["digits/task.py", "tests/test_task.py"]
"""What is the user's of OLD."""


@pytest.fixture(scope="session")
def source(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of a small template with the versions 0.1.0 and 0.2.0, and a state after it."""
    folder = tmp_path_factory.mktemp("sources") / "small"
    shutil.copytree(template / "includes", folder / "includes", ignore=shutil.ignore_patterns("moved.yml"))
    for name in ("copier.yml", "template/.gitignore", "template/.gitattributes"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy2(template / name, folder / name)
    for path in (template / "template").glob("*answers_file*"):
        shutil.copy2(path, folder / "template")
    for path in (template / "template").glob("*if ci*"):
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, folder / "template" / path.name)
    write(folder / "template", OLD)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, "0.1.0")
    for path in OLD.keys() - NEW.keys():
        (folder / "template" / path).unlink()
    write(folder / "template", NEW)
    write(folder, {"CHANGELOG.md": CHANGES, "includes/moved.yml": MOVED})
    commit(folder, "0.2.0")
    write(folder / "template", {f"{PACKAGE}/engine/loop.py": LINES})
    commit(folder, "0.3.0rc1")
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`rendered` that copies what it rendered before."""
    kept: dict[str, Path] = {}
    folder = tmp_path_factory.mktemp("rendered")

    @functools.wraps(rendered)
    def once(source, version, answers, dst):
        key = repr((source, version, sorted(answers.items(), key=str)))
        if key in kept:
            return shutil.copytree(kept[key], dst, symlinks=True)
        rendered(source, version, answers, dst)
        kept[key] = shutil.copytree(dst, folder / str(len(kept)), symlinks=True)
        return dst

    return once


@pytest.fixture(scope="session")
def started(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("projects") / "small"
    answers = {"package_name": "digits", "project_name": "Digits"}
    rendered(str(source), "0.1.0", answers, folder)
    git(folder, "init", "--quiet", "--initial-branch=main")
    for key, value in {"user.name": "Owner", "user.email": "owner@example.org"}.items():
        git(folder, "config", key, value)
    commit(folder)
    return folder


@pytest.fixture
def project(started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, once) -> Path:
    """A project of 0.1.0; temporary files have a folder of their own in `tmp_path`."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(update, "rendered", once)
    return shutil.copytree(started, tmp_path / "project")


class Result(str):
    """What a command said; `code` is its exit code."""

    code: int


@pytest.fixture
def ostinato(project: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., Result]:
    """`ostinato("update", …)` runs in `cwd`. Its checks find nothing, or do what `check` does."""

    def ostinato(*arguments: str, cwd: Path = project, check=lambda trees, say: None) -> Result:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(__main__, "Checks", lambda *settings: check)
        code = __main__.main(arguments)
        captured = capsys.readouterr()
        result = Result(captured.out + captured.err)
        result.code = code
        return result

    return ostinato


def changed(text: str, line: int, to: str) -> str:
    lines = text.splitlines()
    lines[line] = to
    return "\n".join(lines) + "\n"


def test_what_was_not_edited_is_as_freshly_rendered(project, ostinato, source, tmp_path):
    before = {path: (project / path).read_text() for path in USERS}
    result = ostinato("update")
    assert result.code == 0, result
    fresh = rendered(str(source), "0.2.0", {"package_name": "digits", "project_name": "Digits"}, tmp_path / "fresh")
    names = set(git(project, "ls-files").split())
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
    assert (result.code, result.strip()) == (0, "The project is at 0.2.0, which is the newest version.")
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


def test_an_edit_of_a_file_that_git_does_not_recognise_is_merged(project, ostinato):
    text = changed(LINES.replace("line", "part"), 1, "part_1 = 'mine'")
    edit(project, {"digits/engine/rewritten.py": text})
    said = ostinato("update")
    assert said.code == 0, said
    assert "part_1 = 'mine'" in (project / "digits/engine/folder/first.py").read_text()
    assert "moved     digits/engine/rewritten.py → digits/engine/folder/first.py" in said
    assert not (project / "digits/engine/rewritten.py").exists()


def test_a_conflict_names_where_code_of_the_file_went(project, ostinato):
    edit(project, {"digits/engine/rewritten.py": changed(LINES.replace("line", "part"), 25, "part_25 = 'mine'")})
    said = ostinato("update")
    assert said.code == 1
    (line,) = (line for line in said.splitlines() if line.startswith("  digits/engine/folder/first.py: "))
    assert line.endswith("Code of digits/engine/rewritten.py is now in digits/engine/folder/second.py.")
    assert "part_25 = 'mine'" in git(project, "show", "ostinato-update-0.2.0:digits/engine/folder/first.py")


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


@pytest.mark.parametrize(
    ("path", "text", "said", "branch_holds"),
    [
        ("digits/engine/loop.py", changed(LINES, 20, "line_20 = 'mine'"), "changed the same lines", "<<<<<<< yours"),
        ("digits/engine/gone.py", "mine\n", "does not have it", "mine"),
    ],
)
def test_a_conflict_leaves_the_project_and_a_branch(project, ostinato, path, text, said, branch_holds):
    edit(project, {path: text})
    before = state(project)
    result = ostinato("update")
    assert result.code == 1
    assert f"{path}: " in result
    assert said in result
    assert "git switch ostinato-update-0.2.0" in result
    assert state(project) == before
    assert branch_holds in git(project, "show", f"ostinato-update-0.2.0:{path}")
    assert "line_20 = 'new'" in git(project, "show", "ostinato-update-0.2.0:digits/engine/new_name.py").replace(
        "name", "line"
    )

    assert ostinato("update").code == 1  # again, over the branch that nobody touched
    assert "Deleted the branch ostinato-update-0.2.0" in ostinato("update", "--abort")
    assert git(project, "branch", "--format=%(refname:short)").split() == ["main"]
    assert state(project) == before


def test_a_conflict_can_be_resolved_on_the_branch(project, ostinato):
    edit(project, {"digits/engine/loop.py": changed(LINES, 20, "line_20 = 'mine'")})
    assert ostinato("update").code == 1
    git(project, "switch", "--quiet", "ostinato-update-0.2.0")
    edit(project, {"digits/engine/loop.py": changed(LINES, 20, "line_20 = 'both'")})
    git(project, "switch", "--quiet", "main")
    result = ostinato("update")
    assert result.code == 2
    assert "has your commits" in result
    assert "stays: it is checked out or has your commits" in ostinato("update", "--abort")
    git(project, "merge", "--quiet", "ostinato-update-0.2.0")
    assert "which is the newest version" in ostinato("update")


def test_a_resolution_that_amends_the_commit_is_kept(project, ostinato):
    edit(project, {"digits/engine/loop.py": changed(LINES, 20, "line_20 = 'mine'")})
    assert ostinato("update").code == 1
    git(project, "switch", "--quiet", "ostinato-update-0.2.0")
    (project / "digits/engine/loop.py").write_text(changed(LINES, 20, "line_20 = 'both'"))
    git(project, "commit", "--quiet", "--all", "--amend", "--no-edit")
    git(project, "switch", "--quiet", "main")
    assert "has your commits" in ostinato("update")
    assert "stays: it is checked out or has your commits" in ostinato("update", "--abort")


def failing(trees, say):
    raise Stopped("It does not train.")


def test_a_failing_check_leaves_the_project_and_a_branch(project, ostinato):
    before = state(project)
    result = ostinato("update", check=failing)
    assert result.code == 1
    assert "It does not train." in result
    assert state(project) == before
    assert git(project, "rev-parse", "ostinato-update-0.2.0~1") == git(project, "rev-parse", "main")
    assert ostinato("update").code == 0  # and the branch of the earlier try is gone
    assert git(project, "branch", "--format=%(refname:short)").split() == ["main"]


def test_what_is_checked_is_the_project_before_and_after(project, ostinato):
    write(project, {"data/ignored.bin": "data", "runs/r/config.yaml": "", "digits/__pycache__/x.pyc": ""})
    seen = {}

    def look(trees, say):
        seen["lines"] = [(f / "digits/engine/loop.py").read_text() for f in (trees.before, trees.after)]
        seen["data"] = [(folder / "data/ignored.bin").read_text() for folder in (trees.before, trees.after)]
        seen["runs"] = [(folder / "runs").exists() for folder in (trees.before, trees.after)]
        seen["changed"] = trees.changed

    assert ostinato("update", check=look).code == 0
    assert seen["lines"] == [OLD[f"{PACKAGE}/engine/loop.py"], NEW[f"{PACKAGE}/engine/loop.py"]]
    assert seen["data"] == ["data", "data"]
    assert seen["runs"] == [False, False]
    assert "configs/scheduler/new.yaml" in seen["changed"]
    assert "digits/task.py" not in seen["changed"]


def test_a_dry_run_changes_nothing(project, ostinato):
    before = state(project), git(project, "for-each-ref"), sorted((project / ".git").rglob("*"))
    lock = project / ".git/ostinato-update.lock"
    result = ostinato("update", "--dry-run")
    assert result.code == 0
    assert "arrived   configs/scheduler/new.yaml" in result
    assert "would succeed" in result
    assert ostinato("update", "--dry-run", check=failing).code == 1
    lock.unlink()
    assert before == (state(project), git(project, "for-each-ref"), sorted((project / ".git").rglob("*")))


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


def test_an_answer_is_changed(project, ostinato):
    """Copier deletes the files of an option that is switched off. The next test edits such a file."""
    result = ostinato("update", "--to", "0.1.0", "--data", "ci=gitlab")
    assert result.code == 0, result
    assert (project / ".gitlab-ci.yml").exists()
    assert not (project / ".github").exists()
    assert "ci: gitlab" in (project / ANSWERS).read_text()
    assert ostinato("update").code == 0
    assert "Conflict" not in ostinato("update")


def test_an_edited_file_of_an_option_that_is_toggled_off_is_a_conflict(project, ostinato):
    workflow = ".github/workflows/tests.yml"
    edit(project, {workflow: (project / workflow).read_text() + "# mine\n"})
    for toggle in ("--data", "by hand"):
        if toggle == "by hand":
            edit(project, {ANSWERS: (project / ANSWERS).read_text().replace("ci: github", "ci: none")})
        before = state(project)
        result = ostinato("update", *(["--data", "ci=none"] if toggle == "--data" else []))
        assert result.code == 1
        assert f"{workflow}: you changed it, and the new version does not have it" in result
        assert state(project) == before


REFUSALS = {
    "no project": (lambda p: (p / ANSWERS).unlink(), [], f"There is no {ANSWERS}"),
    "no git": (lambda p: shutil.rmtree(p / ".git"), [], "not a git repository"),
    "no commit": (lambda p: [shutil.rmtree(p / ".git"), git(p, "init", "--quiet")], [], "no commit yet"),
    "changed": (lambda p: write(p, {"digits/task.py": "x"}), [], "digits/task.py has changes that are not committed"),
    "untracked": (lambda p: write(p, {"a b/ü.txt": "x"}), [], "a b/ü.txt is untracked"),
    "merging": (lambda p: write(p, {".git/MERGE_HEAD": git(p, "rev-parse", "HEAD")}), [], "A git merge is under way"),
    "rebasing": (lambda p: (p / ".git/rebase-merge").mkdir(), [], "A git rebase is under way"),
    "answers not committed": (
        lambda p: [
            git(p, "rm", "-q", "--cached", ANSWERS),
            write(p, {".git/info/exclude": ANSWERS}),
            git(p, "commit", "-qm", "x"),
        ],
        [],
        "is not committed",
    ),
    "no version": (lambda p: drop(p, "_commit"), [], "has no _commit"),
    "no source": (lambda p: drop(p, "_src_path"), [], "has no _src_path"),
    "not YAML": (lambda p: edit(p, {ANSWERS: "a: [\n"}), [], f"{ANSWERS} cannot be read"),
    "unknown recorded version": (
        lambda p: answer(p, "_commit", "0.1.0-3-gabcdef1"),
        [],
        "has no version 0.1.0-3-gabcdef1",
    ),
    "unknown version": (
        lambda p: None,
        ["--to", "7.0.0"],
        "has no version 7.0.0. The newest are 0.1.0, 0.2.0, 0.3.0rc1",
    ),
    "an option as a version": (lambda p: None, ["--to=--help"], "has no version --help"),
    "unreachable": (lambda p: answer(p, "_src_path", "/nowhere/at/all"), [], "cannot be reached"),
    "not the template": (lambda p: answer(p, "_src_path", str(p)), [], "is not the template"),
    "package renamed": (lambda p: None, ["--data", "package_name=x"], "cannot change package_name"),
    "package renamed in the answers": (
        lambda p: answer(p, "package_name", "x"),
        [],
        "package_name in .copier-answers.yml is x",
    ),
    "point changed": (lambda p: None, ["--data", "starting_point=regression"], "cannot change starting_point"),
    "point changed in the answers": (
        lambda p: answer(p, "starting_point", "regression"),
        [],
        "Write image_classification there again",
    ),
    "no such answer": (lambda p: None, ["--data", "cii=none"], "does not ask for cii"),
    "not an answer": (lambda p: None, ["--data", "ci"], "'ci' is not of the form KEY=VALUE"),
    "refused answer": (lambda p: None, ["--data", "ci=nothing"], "cannot be rendered with the answers"),
    "not a config value": (lambda p: None, ["lr"], "'lr' is not of the form KEY=VALUE"),
    "ignored file in the way": (
        lambda p: write(p, {".git/info/exclude": "added.py\n", "digits/engine/folder/added.py": "precious"}),
        [],
        "The new version brings digits/engine/folder/added.py, but something that git ignores lies there",
    ),
    "ignored file where a folder comes": (
        lambda p: write(p, {".git/info/exclude": "folder\n", "digits/engine/folder": "precious"}),
        [],
        "The new version brings digits/engine/folder/added.py, but something that git ignores lies there",
    ),
}


def drop(project: Path, key: str) -> None:
    lines = (project / ANSWERS).read_text().splitlines(keepends=True)
    edit(project, {ANSWERS: "".join(line for line in lines if not line.startswith(key))})


def answer(project: Path, key: str, value: str) -> None:
    drop(project, f"{key}:")
    edit(project, {ANSWERS: (project / ANSWERS).read_text() + f"{key}: {value}\n"})


def all_files(folder: Path) -> dict[Path, bytes]:
    """Files of git count too, except the lock, which is empty, and the index, which git refreshes."""
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name not in ("index", "ostinato-update.lock")]
    return {path: path.read_bytes() for path in paths}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(project, ostinato, tmp_path, case):
    prepare, arguments, sentence = REFUSALS[case]
    prepare(project)
    before = all_files(project)
    result = ostinato("update", *arguments)
    assert result.code == 2
    (line,) = result.strip().splitlines()
    assert sentence in line
    assert all_files(project) == before
    assert not list((tmp_path / "temporary").iterdir())


def test_no_downgrade(project, ostinato):
    assert ostinato("update").code == 0
    result = ostinato("update", "--to", "0.1.0")
    assert (result.code, result.strip()) == (
        2,
        "The project is at 0.2.0, and 0.1.0 is older. An update only goes forward.",
    )


def test_to_a_pre_release_to_head_and_on(project, ostinato):
    assert ostinato("update", "--to", "0.3.0rc1").code == 0
    assert (project / "digits/engine/loop.py").read_text() == LINES
    assert "newest version" in ostinato("update")
    assert "newest version" in ostinato("update", "--to", "HEAD")


def test_old_git_is_refused(project, ostinato, tmp_path, monkeypatch):
    write(tmp_path, {"bin/git": "#!/bin/sh\necho git version 2.37.9\n"})
    (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    result = ostinato("update")
    assert (result.code, result.strip()) == (2, "git 2.37.9 is too old for an update. Install git 2.38 or newer.")


def test_the_users_git_settings_do_not_matter(project, ostinato, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(snippets.SNIPPETS / "gitconfig"))
    edit(project, {"digits/engine/old_name.py": changed(OLD[f"{PACKAGE}/engine/old_name.py"], 3, "name_3 = 'mine'")})
    write(project, {"untracked.txt": "x"})
    assert "untracked.txt is untracked" in ostinato("update")
    (project / "untracked.txt").unlink()
    assert ostinato("update").code == 0
    assert "name_3 = 'mine'" in (project / "digits/engine/new_name.py").read_text()
    assert b"\r" not in (project / "digits/engine/loop.py").read_bytes()


@pytest.fixture
def killed(project: Path, tmp_path: Path, monkeypatch, ostinato) -> Callable[[int, str], list[str]]:
    """`killed(n, how)`: kill an update before, within or after its n-th call of git. Return its calls of git."""
    calls = tmp_path / "calls"
    write(tmp_path, {"bin/git": snippets.text("git_that_is_killed.sh")})
    (tmp_path / "bin/git").chmod(0o755)

    def killed(number: int, how: str) -> list[str]:
        calls.write_text("")
        child = os.fork()
        if child == 0:
            os.environ |= {"KILL_AT": str(number), "KILL_HOW": how, "CALLS": str(calls)}
            os.environ |= {"REAL_GIT": str(shutil.which("git")), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
            code = 1
            try:
                code = ostinato("update").code
            finally:
                os._exit(code)  # not the tests' own end
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == (-signal.SIGKILL if number else 0), (number, how)
        return calls.read_text().splitlines()

    return killed


def test_kill_at_any_moment_loses_nothing(project, ostinato, killed, once, source, tmp_path):
    """At 20 moments: the update is complete, or `--abort` or the next update restores everything."""
    write(project, {"runs/precious/file": "ignored"})
    before, copy = state(project), shutil.copytree(project, tmp_path / "copy")
    assert ostinato("update").code == 0  # and its versions are rendered, once for all
    shutil.rmtree(project)
    shutil.copytree(copy, project, symlinks=True)
    calls = killed(0, "never")
    complete = git(project, "rev-parse", "HEAD^{tree}")
    merging = next(n for n, call in enumerate(calls, 1) if " merge --ff-only " in call)
    every = max(1, len(calls) // 15)
    points = [(n, "before") for n in range(1, len(calls) + 1, every)][:15]
    points += [
        (merging, "before"),
        (merging, "within"),
        (merging, "after"),
        (merging + 1, "before"),
        (len(calls), "after"),
    ]
    assert len(points) == 20
    for turn, (number, how) in enumerate(points):
        shutil.rmtree(project)
        shutil.copytree(copy, project, symlinks=True)
        git(project, "status")
        killed(number, how)
        is_complete = git(project, "rev-parse", "HEAD^{tree}") == complete
        assert is_complete == ((number, how) == (merging, "after") or number > merging)
        if turn % 2:
            assert ostinato("update", "--abort").code == 0
            if not is_complete:
                assert state(project) == before, (number, how)
        else:
            assert ostinato("update").code == 0
        if is_complete or not turn % 2:
            assert git(project, "rev-parse", "HEAD^{tree}") == complete, (number, how)
            assert git(project, "status", "--porcelain") == ""
        assert (project / "runs/precious/file").read_text() == "ignored"
        assert not list((tmp_path / "temporary").iterdir()), (number, how)


def test_what_was_edited_after_a_kill_is_not_overwritten(project, ostinato, killed):
    assert ostinato("update").code == 0  # renders the versions, once for all
    git(project, "reset", "--quiet", "--hard", "HEAD~1")
    calls = killed(0, "never")
    git(project, "reset", "--quiet", "--hard", "HEAD~1")
    killed(next(n for n, call in enumerate(calls, 1) if " merge --ff-only " in call), "within")
    write(project, {"digits/engine/loop.py": "mine, after the kill\n"})
    for arguments in (["update"], ["update", "--abort"]):
        result = ostinato(*arguments)
        assert result.code == 2
        assert "digits/engine/loop.py was edited since" in result
    assert (project / "digits/engine/loop.py").read_text() == "mine, after the kill\n"
    (project / "digits/engine/loop.py").unlink()
    assert "is undone" in ostinato("update", "--abort")
    assert (project / "digits/engine/loop.py").read_text() == LINES


def test_two_updates_at_once(project, ostinato, monkeypatch):
    monkeypatch.setattr("ostinato.state.PATIENCE", 0.2)
    said = []

    def another(trees, say):
        said.append(ostinato("update"))

    assert ostinato("update", check=another).code == 0
    assert said[0].code == 2
    assert "Another update of this project is running" in said[0]


def test_what_changed_meanwhile_is_not_overwritten(project, ostinato):
    def somebody_writes(trees, say):
        write(project, {"digits/engine/loop.py": "mine\n"})

    def somebody_commits(trees, say):
        git(project, "commit", "--quiet", "--allow-empty", "--message=x")

    def something_comes(trees, say):
        write(project, {".git/info/exclude": "new.yaml\n", "configs/scheduler/new.yaml": "precious"})

    assert "has changes that are not committed" in ostinato("update", check=somebody_writes)
    assert (project / "digits/engine/loop.py").read_text() == "mine\n"
    git(project, "checkout", "--", ".")
    assert "got a commit during the update" in ostinato("update", check=somebody_commits)
    result = ostinato("update", check=something_comes)
    assert result.code == 2
    assert "configs/scheduler/new.yaml, but something that git ignores lies there" in result
    assert (project / "configs/scheduler/new.yaml").read_text() == "precious"
    assert git(project, "status", "--porcelain") == ""


def test_git_itself_overwrites_no_ignored_file(project, ostinato, monkeypatch):
    monkeypatch.setattr(update, "_refuse_in_the_way", lambda project, merged: None)
    write(project, {".git/info/exclude": "new.yaml\n", "configs/scheduler/new.yaml": "precious"})
    before = state(project)
    result = ostinato("update")
    assert result.code == 1
    assert "git could not fast-forward" in result
    assert state(project) == before


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
    assert "which is the newest version" in ostinato("update")


def test_new(source, tmp_path, ostinato):
    result = ostinato("new", str(source), str(tmp_path / "made"), "--defaults", "--to", "0.1.0")
    assert result.code == 0
    assert (tmp_path / "made" / "my_project" / "engine" / "loop.py").exists()


@pytest.mark.parametrize(
    ("old", "new", "sections", "numbers", "defaults", "removed"),
    [
        ("0.1.0", "0.2.0", ["0.2.0"], False, {"keep_last", "lr"}, set()),
        ("0.1.0", "0.3.0", ["0.3.0", "0.2.0"], True, {"keep_last", "lr"}, set()),
        ("0.2.0", "0.3.0", ["0.3.0"], True, set(), set()),
        ("0.3.0", "0.3.0-2-gabcdef0", ["Unreleased"], False, set(), {"a.b", "optimizer=sgd"}),
        ("0.3.0", "0.3.0", [], False, set(), set()),
    ],
)
def test_the_changelog_between_two_versions(old, new, sections, numbers, defaults, removed):
    found = changelog.between(snippets.text("changelog.md"), as_version(old), as_version(new))
    assert [line.split()[1] for line in found.text.splitlines() if line.startswith("## ")] == sections
    assert (found.numbers, found.checkpoints) == (numbers, numbers)
    assert (found.defaults, found.removed) == (defaults, removed)


def test_the_updater_is_a_package_of_its_own():
    """What uvx installs: without torch, and without the template's tests."""
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["project"]["scripts"] == {"ostinato": "ostinato.__main__:main"}
    assert settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["ostinato"]
    assert not any(name.startswith("torch") for name in settings["project"]["dependencies"])


def test_which_python_runs_the_projects_code(tmp_path, monkeypatch):
    """uv never runs in the project, where it would write a lock file."""
    project, updated, uv = tmp_path / "project", tmp_path / "updated", tmp_path / "uv"
    own = project / ".venv/bin/python"
    own.parent.mkdir(parents=True)
    own.touch()
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV", str(uv))
    with_uv = [str(uv), "run", "--quiet", "--project", str(updated), "python"]
    assert find_python(project, None, updated, False) == [str(own)]
    assert find_python(project, None, updated, True) == with_uv
    assert find_python(project, sys.executable, updated, True) == [sys.executable]
    monkeypatch.chdir(own.parent)
    own.chmod(0o755)
    assert find_python(project, "./python", updated, False) == [str(own)]
    own.unlink()
    assert find_python(project, None, updated, False) == with_uv
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    assert find_python(project, None, updated, False) == [f"{sys.prefix}/bin/python"]
    other = tmp_path / "other/bin/python"
    other.parent.mkdir(parents=True)
    other.touch()
    monkeypatch.setenv("UV_PROJECT_ENVIRONMENT", "../other")
    assert find_python(project, None, updated, False)[0].endswith("other/bin/python")


def test_no_environment_in_use_is_handed_on(tmp_path, monkeypatch):
    for name in ("UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV", "PYTHONPATH"):
        monkeypatch.setenv(name, "/nowhere")
    done = _run([sys.executable], tmp_path, "-c", "import os; print(*os.environ)")
    assert done.code == 0
    assert not {"UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV", "PYTHONPATH"} & set(done.out.split())


def test_a_new_project_from_nowhere_is_refused_in_a_sentence(tmp_path, capsys):
    assert __main__.main(["new", str(tmp_path / "nowhere"), str(tmp_path / "project"), "--defaults"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "nowhere" in said[0]
