"""What the checks of an update are given: two trees, and a Python that runs the project's code."""

import sys

from helpers.releases import git
from helpers.small_template import NEW, OLD, PACKAGE, failing
from helpers.updating import state, write

from ostinato.check import _run, find_python


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
