"""What the checks of an update are given: two trees, and a Python that runs the project's code."""

import sys
import time
from pathlib import Path

import pytest
from helpers import snippets
from helpers.releases import git
from helpers.small_template import NEW, OLD, PACKAGE, failing
from helpers.updating import state, write

from ostinato import check
from ostinato.changelog import between
from ostinato.check import Checks, TooSlow, _run, find_python
from ostinato.errors import Stopped


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
    assert find_python(project, None, updated, []) == [str(own)]
    assert find_python(project, sys.executable, updated, ["a-package-that-is-missing"]) == [sys.executable]
    monkeypatch.chdir(own.parent)
    own.chmod(0o755)
    assert find_python(project, "./python", updated, []) == [str(own)]
    own.unlink()
    assert find_python(project, None, updated, []) == with_uv
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    assert find_python(project, None, updated, []) == [f"{sys.prefix}/bin/python"]
    other = tmp_path / "other/bin/python"
    other.parent.mkdir(parents=True)
    other.touch()
    monkeypatch.setenv("UV_PROJECT_ENVIRONMENT", "../other")
    assert find_python(project, None, updated, [])[0].endswith("other/bin/python")


@pytest.mark.parametrize(
    ("new", "is_new_environment"),
    [
        ([], False),
        (["pytest"], False),
        (["pytest>=1", "PyYAML>=5,<99"], False),
        (["pytest>=9999"], True),
        (["a-package-that-is-missing"], True),
        (["a-package-that-is-missing; python_version < '3'"], False),
    ],
)
def test_uv_makes_an_environment_if_the_projects_lacks_a_new_requirement(
    tmp_path, monkeypatch, new, is_new_environment
):
    monkeypatch.setenv("UV", "uv")
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    monkeypatch.delenv("UV_PROJECT_ENVIRONMENT", raising=False)
    assert (find_python(tmp_path, None, tmp_path, new)[0] == "uv") == is_new_environment


def test_no_environment_in_use_is_handed_on(tmp_path, monkeypatch):
    for name in ("UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV", "PYTHONPATH"):
        monkeypatch.setenv(name, "/nowhere")
    done = _run([sys.executable], tmp_path, "-c", "import os; print(*os.environ)")
    assert done.code == 0
    assert not {"UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV", "PYTHONPATH"} & set(done.out.split())


def test_a_command_that_is_too_slow_leaves_no_process(tmp_path):
    """One child ignores signals, and one has closed its output. Both end."""
    with pytest.raises(TooSlow, match="takes more than 3 s"):
        _run([sys.executable], tmp_path, "-c", snippets.text("children.py"), seconds=3)
    children = (tmp_path / "children").read_text().split()
    assert len(children) == 2
    for child in children:
        stat, end = Path(f"/proc/{child}/stat"), time.monotonic() + 10  # a kill takes effect a little later
        while stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z":
            assert time.monotonic() < end, stat.read_text()
            time.sleep(0.05)


PASSES = "def test_passes():\n    pass\n"
FAILS = "def test_fails():\n    assert 0\n"
SLOW = "import time\n\ndef test_slow():\n    time.sleep(60)\n"
LACKS = "import a_package_that_is_missing\n"


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (PASSES, PASSES, "  the project's tests pass"),
        ("", "", "  the project's tests pass"),
        (FAILS, PASSES, "  the project's tests pass"),
        (FAILS, FAILS, "end as before the update: 1 fail, such as test_it.py::test_fails"),
        (LACKS, LACKS, "end as before the update: 1 fail, such as test_it.py"),
        (PASSES, FAILS, "do not pass: test_it.py::test_fails fails."),
        (PASSES, LACKS, "do not pass: test_it.py fails."),
        (FAILS, FAILS + LACKS, "do not pass: test_it.py fails."),
        (PASSES, "", "do not pass: pytest finds no test any more."),
        (PASSES, SLOW, "`python -m pytest` takes more than"),
        (SLOW, SLOW, "are not compared. `python -m pytest` takes more than 2 s before the update"),
    ],
)
def test_the_projects_tests_are_compared(tmp_path, monkeypatch, before, after, sentence):
    for name, seconds in {"PATIENCE": 1, "SLOWER": 2, "LONGEST": 2 if before == SLOW else 60}.items():
        monkeypatch.setattr(check, name, seconds)
    for name, text in (("before", before), ("after", after)):
        write(tmp_path / name, {"test_it.py": text, "pytest.ini": ""})
    checks, said = Checks(tmp_path), []
    checks.command = [sys.executable]
    trees = check.Trees(tmp_path / "before", tmp_path / "after", [], between("", None))
    try:
        checks._test(trees, said.append)
    except Stopped as stop:
        said.append(str(stop).splitlines()[0])
    assert len(said) == 1
    assert sentence in said[0]


def test_the_run_of_the_short_training_is_found_among_other_files(tmp_path):
    project = tmp_path / "before"
    with pytest.raises(Stopped, match="before the update left no run in runs/ostinato-check"):
        check._newest_run(project)
    runs = {name: "" for name in ("1_committed/manifest.json", "2_new/manifest.json", "3_hidden/x", ".DS_Store")}
    write(project / "runs/ostinato-check", runs)
    assert check._newest_run(project).name == "2_new"


def test_a_project_without_pyproject_toml_has_no_requirements(tmp_path):
    assert check._dependencies(tmp_path) == set()


def test_tests_that_cannot_run_are_told(tmp_path):
    """The tests need pytest, which is not installed. The update says so and goes on."""
    for name in ("before", "after"):
        write(tmp_path / name, {"pytest.py": "raise ImportError('no pytest here')"})
    checks, said = Checks(tmp_path), []
    checks.command = [sys.executable]
    checks._test(check.Trees(tmp_path / "before", tmp_path / "after", [], between("", None)), said.append)
    assert said == ["  the project's tests cannot run, as before the update: ImportError: no pytest here"]
