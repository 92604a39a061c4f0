"""Fixtures: a small template with this template's copier.yml, a project of it, and `ostinato` run in it."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.releases import commit, git
from helpers.small_template import CHANGES, LINES, MOVED, NEW, OLD, PACKAGE, Result
from helpers.updating import write

from ostinato import __main__, update
from ostinato.render import rendered


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
    def once(source, version, answers, dst, address, answers_file):
        key = repr((version, sorted(answers.items(), key=str), address, answers_file))
        if key in kept:
            return shutil.copytree(kept[key], dst, symlinks=True)
        rendered(source, version, answers, dst, address, answers_file)
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
