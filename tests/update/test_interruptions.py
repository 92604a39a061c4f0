"""An update that is killed, or that something else disturbs, loses nothing."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import snippets
from helpers.releases import git
from helpers.small_template import LINES
from helpers.updating import state, write

from ostinato import update
from ostinato.errors import Stopped


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
    assert "Deleted the branch" in ostinato("update", "--abort")
    assert "got a commit during the update" in ostinato("update", check=somebody_commits)
    result = ostinato("update", check=something_comes)
    assert result.code == 2
    assert "configs/scheduler/new.yaml, but something that git ignores lies there" in result
    assert (project / "configs/scheduler/new.yaml").read_text() == "precious"
    assert git(project, "status", "--porcelain") == ""


def test_a_tested_update_is_kept_if_the_project_changed_meanwhile(project, ostinato):
    def somebody_works(trees, say):
        write(project, {"digits/task.py": "mine\n"})
        git(project, "commit", "--quiet", "--all", "--message=Work")
        write(project, {"digits/losses.py": "mine, too\n"})

    result = ostinato("update", check=somebody_works)
    assert result.code == 2
    assert "digits/losses.py has changes that are not committed" in result
    assert "`git merge ostinato-update-0.2.0` brings it without new ones" in result
    git(project, "commit", "--quiet", "--all", "--message=More work")
    git(project, "merge", "--quiet", "--no-edit", "ostinato-update-0.2.0")
    assert "line_20 = 'new'" in (project / "digits/engine/loop.py").read_text()
    assert (project / "digits/task.py").read_text() == "mine\n"
    assert "nothing to update" in ostinato("update")


def test_git_itself_overwrites_no_ignored_file(project, ostinato, monkeypatch):
    monkeypatch.setattr(update, "_refuse_in_the_way", lambda project, merged: None)
    write(project, {".git/info/exclude": "new.yaml\n", "configs/scheduler/new.yaml": "precious"})
    before = state(project)
    result = ostinato("update")
    assert result.code == 2
    assert "git could not fast-forward: error: The following untracked" in result
    assert "Please move or remove them before you merge. The update passed its checks" in result.splitlines()[-1]
    assert state(project) == before
    assert git(project, "branch", "--list", "ostinato*").strip() == "ostinato-update-0.2.0"


def test_what_fails_after_an_update_does_not_count(project, ostinato):
    write(project, {".git/refs/ostinato": git(project, "rev-parse", "HEAD")})
    result = ostinato("update")
    assert (result.code, "Updated to 0.2.0" in result, result.count("update --abort")) == (0, True, 0), result


@pytest.mark.parametrize(
    ("full", "why", "sentence"),
    [
        ("temporary", "[Errno 28] No space left on device: 'x.pt'", "Set TMPDIR to a larger one"),
        ("project", "sha1 file '.git/index.lock' write error. Out of diskspace", "--abort"),
    ],
)
def test_a_full_disk_is_told(project, ostinato, monkeypatch, tmp_path, full, why, sentence):
    def fill(trees, say):
        raise Stopped(f"The project does not train before the update: {why}")

    def usage(path):
        return SimpleNamespace(free=0 if str(path).startswith(str(tmp_path / full)) else 1)

    monkeypatch.setattr(update.shutil, "disk_usage", usage)
    before = state(project)
    result = ostinato("update", check=fill)
    assert result.code == 1
    assert sentence in result.splitlines()[-1]
    assert state(project) == before
    assert git(project, "branch", "--list", "ostinato*") == ""
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("is_ignored", [True, False])
def test_temporary_files_in_the_project(project, ostinato, monkeypatch, is_ignored):
    write(project, {".git/info/exclude": "/tmp/\n" if is_ignored else ""})
    (project / "tmp").mkdir()
    before = state(project)
    monkeypatch.setattr("tempfile.tempdir", str(project / "tmp"))
    result = ostinato("update")
    assert result.code == 2
    assert "lies in the project" in result.splitlines()[-1]
    assert state(project) == before
