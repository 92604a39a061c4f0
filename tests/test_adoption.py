"""The pages of docs/adoption are executed: existing projects train with the engine and can be updated."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.forkserver import Result
from helpers.releases import NEWEST, commit, files, git, versions
from helpers.runs import result, the_run
from helpers.template import ROOT
from helpers.updating import Versions, apply, checked_update

FOLDER = ROOT / "docs/adoption"
FURTHER = "9999.1.0"
RUN = """import runpy, sys
sys.path[:0] = ["src", "."]  # as in an environment that has the project's package
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass
class Adopted:
    folder: Path
    run: Callable[..., Result]
    """Run a script of the project."""
    before: Result
    """What the old script did."""

    def test(self, *paths: str) -> None:
        (self.folder.parent / "tests.py").write_text("import sys, pytest\nsys.exit(pytest.main(sys.argv[1:]))")
        done = self.run("../tests.py", "-q", "-p", "no:cacheprovider", *paths)
        assert done.code == 0, done.out


@pytest.fixture
def adopt(server, tmp_path: Path):
    """`adopt(page, before, repository, version, *script)`: the project after the steps of a page."""

    def adopt(page: str, before: str, repository: Path, version: str, *script: str) -> Adopted:
        project = shutil.copytree(FOLDER / before, tmp_path / "project")
        (tmp_path / "run.py").write_text(RUN)
        run = lambda *arguments: server.run(tmp_path / "run.py", *arguments, cwd=project)  # noqa: E731
        git(project, "init", "--quiet")
        for key, value in {"user.name": "Me", "user.email": "me@example.org"}.items():
            git(project, "config", key, value)
        adopted = Adopted(project, run, run(*script))
        assert adopted.before.code == 0, adopted.before.out
        git(project, "add", "--all")
        git(project, "commit", "--quiet", "--message", "As it was")
        text = (FOLDER / page).read_text(encoding="utf-8")
        for kind, step in re.findall(r"^```(bash|python|yaml)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            if kind == "bash":
                if "uv run python train.py" in step:  # here, in a process that has torch already
                    done = run("train.py", "logger=none")
                    assert done.code == 0, done.out
                    step = re.sub("^uv run.*\n", "", step, flags=re.MULTILINE)
                copier = f"{sys.executable} -m copier"
                step = step.replace("uvx copier", copier).replace("SOURCE", f"--vcs-ref {version} '{repository}'")
                subprocess.run(["bash", "-euc", step], cwd=project, check=True, capture_output=True)
            else:
                name, content = step.removeprefix("# ").split("\n", 1)
                (project / name).parent.mkdir(parents=True, exist_ok=True)
                (project / name).write_text(content)
        assert git(project, "status", "--porcelain") == ""
        assert (project / "README.md").read_bytes() == (FOLDER / before / "README.md").read_bytes()
        return adopted

    return adopt


@pytest.fixture(scope="module")
def further(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with one more version, which has another line and another file."""
    folder = shutil.copytree(repository, tmp_path_factory.mktemp("further") / "ostinato")
    loop = folder / "template/{{ package_name }}/engine/loop.py"
    loop.write_text(loop.read_text() + "# new\n")
    (loop.parent / "added.py").write_text('"""New."""\n')
    commit(folder, FURTHER)
    return folder


def updated(project: Path, repository: Path, version: str) -> dict[str, bytes]:
    """The files after an update without conflicts."""
    rendered = Versions(repository, project.parent / "versions")
    merged = checked_update(project, rendered, project.parent / "scratch", version)
    assert merged.conflicts == {}
    apply(merged, project)
    return files(project)


def test_a_package_and_a_script(adopt, repository: Path):
    project = adopt("README.md", "before", repository, versions()[0], "train.py")
    wanted = float(re.findall(r"error (\S+)", project.before.out)[-1])
    assert result(the_run(project.folder))["best"] <= wanted + 3
    project.test("tests/test_dataset.py")

    before = files(project.folder)
    after = updated(project.folder, repository, NEWEST)
    for path in ("README.md", "sugar/__init__.py", "sugar/dataset.py", "sugar/task.py", "sugar/model.py"):
        assert after[path] == before[path], path
    assert not {"sugar/data/parabola.py", "tests/test_task.py", "configs/data/parabola.yaml"} & after.keys()
    done = project.run("train.py", "max_steps=3", "logger=none")
    assert done.code == 0, done.out


@pytest.mark.thorough
def test_several_packages_and_a_json_config(adopt, further: Path):
    project = adopt("several-packages.md", "before-packages", further, NEWEST, "train.py")
    wanted = float(re.findall(r"accuracy (\S+)", project.before.out)[-1])
    assert result(the_run(project.folder))["best"] >= wanted - 0.02
    assert git(project.folder, "ls-files", "*.pth", "runs") == ""

    before = files(project.folder)
    after = updated(project.folder, further, FURTHER)
    assert after["glyphs/engine/loop.py"].endswith(b"# new\n")
    assert {path for path in before if path.startswith("glyphs/") and "/engine/" not in path} <= after.keys()
    assert not {"glyphs/data/digits.py", "tests/test_task.py", "configs/model/cnn.yaml"} & after.keys()
    done = project.run("train.py", "max_steps=3", "logger=none")
    assert done.code == 0, done.out
    project.test("tests/engine/test_configs.py")  # without `mix` in train.yaml


@pytest.mark.thorough
def test_a_package_in_src(adopt, further: Path):
    project = adopt("src-layout.md", "before-src", further, NEWEST, "src/waves/cli.py")
    wanted = float(re.findall(r"error (\S+)", project.before.out)[-1])
    assert result(the_run(project.folder))["best"] <= wanted + 0.02
    project.test("tests/test_series.py")

    after = updated(project.folder, further, FURTHER)
    assert after["src/waves/engine/loop.py"].endswith(b"# new\n")
    assert "src/waves/engine/added.py" in after
    assert not any(path.startswith("waves/") for path in after)
    done = project.run("train.py", "max_steps=3", "logger=none")
    assert done.code == 0, done.out
    project.test("tests/engine/test_configs.py")
