"""A new project holds only the built-in choices that its starting point uses. Projects from before keep all of them."""

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import copier
import pytest
import yaml
from helpers.releases import NEWEST, commit, files, git, versions
from helpers.runs import the_run
from helpers.template import POINTS
from helpers.updating import QUIET

from ostinato import update

OLDEST, FURTHER = versions()[0], "9999.1.0"
CHOICES = ("digits/engine/datasets/", "digits/engine/models/")
BUILT_IN = {
    "image_classification": None,
    "dense_prediction": {"datasets/__init__.py", "datasets/pictures.py"},
    "segmentation": {"datasets/__init__.py", "datasets/pictures.py"},
    "language_model": set(),
    "regression": set(),
    "tabular": set(),
}
"""What a starting point holds of the built-in data sets and models; None: all."""
ON_DEMAND = {"datasets", "mlflow", "onnx", "onnxruntime", "optuna", "submitit", "timm", "tokenizers", "wandb"}
ON_DEMAND |= {"huggingface_hub"}  # datasets and timm bring it along
"""The code that imports these packages says in a sentence that one is missing. A model of timm brings timm along."""
DISTRIBUTIONS = {
    "hydra": "hydra-core",
    "omegaconf": "hydra-core",
    "PIL": "pillow",
    "yaml": "hydra-core",
    "sklearn": "scikit-learn",
}


def choices(project: Path) -> set[str]:
    return {path.removeprefix("digits/engine/") for path in files(project) if path.startswith(CHOICES)}


def dependencies(project: Path) -> set[str]:
    settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    return {text.partition(">=")[0] for text in settings["project"]["dependencies"]}


@pytest.mark.parametrize("point", POINTS)
def test_it_holds_what_it_uses_and_no_more(scaffold, point: str):
    project = scaffold(NEWEST, package_name="digits", starting_point=point)
    everything = choices(scaffold(NEWEST, package_name="digits"))
    wanted = BUILT_IN[point]
    assert choices(project) == (everything if wanted is None else wanted)
    assert ("torchvision" in dependencies(project)) == (point in ("image_classification", "dense_prediction"))
    assert ("scikit-learn" in dependencies(project)) == (point in ("image_classification", "tabular"))
    assert ("pandas" in dependencies(project)) == (point == "tabular")


@pytest.mark.parametrize("point", POINTS)
def test_all_that_its_code_imports_is_there(scaffold, point: str):
    project = scaffold(NEWEST, package_name="digits", starting_point=point)
    declared = dependencies(project) | {"pytest", "digits", *sys.stdlib_module_names}
    for path in project.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names, folder = [alias.name for alias in node.names], project
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names, folder = [str(node.module)], project
            elif isinstance(node, ast.ImportFrom):
                names, folder = [node.module or "__init__"], path.parents[node.level - 1]
            else:
                continue
            for name in names:
                first = name.partition(".")[0]
                if folder != project or first == "digits":
                    module = folder / name.replace(".", "/")
                    assert module.with_suffix(".py").is_file() or module.is_dir(), f"{path}: {name}"
                elif first not in ON_DEMAND:
                    assert DISTRIBUTIONS.get(first, first) in declared, f"{path}: {name}"


# Runs a module of a project as if some packages were not installed: `python HIDING NAMES MODULE …`
HIDING = """
import os, runpy, sys
from importlib.machinery import PathFinder

_, hidden, *sys.argv = sys.argv
sys.path.insert(0, os.getcwd())
find_spec = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if name in hidden.split(",") else find_spec(name, *more)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def test_a_regression_trains_without_torchvision_and_scikit_learn(scaffold, tmp_path: Path):
    project = shutil.copytree(scaffold(NEWEST, package_name="digits", starting_point="regression"), tmp_path / "new")
    (tmp_path / "hiding.py").write_text(HIDING)

    def run(*arguments: str) -> str:
        command = [sys.executable, str(tmp_path / "hiding.py"), "torchvision,sklearn", *arguments]
        done = subprocess.run(command, cwd=project, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("train", "max_steps=4", "device=cpu", "workers=0")
    manifest = yaml.safe_load((the_run(project) / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["status"] == "finished"
    assert "val/loss" in run("digits", "evaluate", str(the_run(project)))


# --- Updates remember


@pytest.fixture(scope="module")
def further(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with one more version, which changes a built-in data set and adds another."""
    folder = shutil.copytree(repository, tmp_path_factory.mktemp("further") / "ostinato")
    datasets = folder / "template/{{ package_name }}/engine/datasets"
    (datasets / "arrays.py").write_text("# further\n")
    (datasets / "another.py").write_text("# further\n")
    commit(folder, FURTHER)
    return folder


@pytest.fixture(params=["plain", "checked"])
def updated(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch) -> Callable[[Path, str], None]:
    """`updated(project, version)`: updates the project and commits."""

    def plain(project: Path, version: str) -> None:
        copier.run_update(project, vcs_ref=version, settings=copier.Settings(), **QUIET)
        commit(project)

    def checked(project: Path, version: str) -> None:
        update.update(project, update.Asked(to=version), lambda trees, say: None)

    return plain if request.param == "plain" else checked


def started(source: Path, version: str, folder: Path) -> Path:
    """A regression project under git."""
    answers = {"package_name": "digits", "starting_point": "regression"}
    copier.run_copy(str(source), folder, data=answers, vcs_ref=version, settings=copier.Settings(), **QUIET)
    git(folder, "init", "--quiet")
    git(folder, "config", "user.name", "Me")
    git(folder, "config", "user.email", "me@example.org")
    commit(folder)
    return folder


def test_a_project_from_before_keeps_all(further: Path, tmp_path: Path, updated):
    project = started(further, OLDEST, tmp_path / "old")
    before, needs = choices(project), dependencies(project)
    assert "datasets/arrays.py" in before
    for version in (NEWEST, FURTHER):
        updated(project, version)
        assert before <= choices(project)
        assert needs <= dependencies(project)
    assert (project / "digits/engine/datasets/another.py").exists()
    assert (project / "digits/engine/datasets/arrays.py").read_text() == "# further\n"


def test_a_lean_project_stays_lean(further: Path, tmp_path: Path, updated):
    project = started(further, NEWEST, tmp_path / "new")
    mine = project / "digits/engine/datasets/mine.py"
    mine.parent.mkdir()
    mine.write_text("# mine\n")
    commit(project)
    updated(project, FURTHER)
    assert choices(project) == {"datasets/mine.py"}
    assert "torchvision" not in dependencies(project)
    copier.run_recopy(project, vcs_ref=FURTHER, settings=copier.Settings(), **QUIET)
    assert choices(project) == {"datasets/mine.py"}


def test_a_recopy_of_a_project_from_before_keeps_all(further: Path, tmp_path: Path):
    project = started(further, OLDEST, tmp_path / "old")
    copier.run_recopy(project, vcs_ref=NEWEST, settings=copier.Settings(), **QUIET)
    assert {"datasets/arrays.py", "models/mlp.py"} <= choices(project)
    assert "torchvision" in dependencies(project)


def test_an_answers_file_without_rendered_as_is_from_before(further: Path, tmp_path: Path):
    project = started(further, OLDEST, tmp_path / "old")
    answers = project / ".copier-answers.yml"
    lines = answers.read_text(encoding="utf-8").splitlines(keepends=True)
    answers.write_text("".join(line for line in lines if not line.startswith("rendered_as")), encoding="utf-8")
    commit(project)
    update.update(project, update.Asked(to=NEWEST), lambda trees, say: None)
    assert {"datasets/arrays.py", "models/mlp.py"} <= choices(project)
