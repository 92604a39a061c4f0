"""Fixtures: a project with finished runs, and the commands that read them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.forkserver import Result, Server
from helpers.tools import MLP, SMALL, runs


@pytest.fixture(scope="session")
def digits(project: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with finished runs; tests that change a run take a copy of it."""
    folder = shutil.copytree(project, tmp_path_factory.mktemp("tools") / "digits")
    for overrides in (
        ("name=seeds", *MLP, "seed=0"),
        ("name=seeds", *MLP, "seed=1"),
        ("name=seeds", *MLP, "seed=2"),
        ("name=seeds", *MLP, "seed=0", "lr=0.01"),
        ("name=ema", "ema_decay=0.9", "model=cnn", "model.width=4", "batch_size=40", "accumulate=2"),
    ):
        done = server.run(folder / "train.py", *SMALL, *overrides)
        assert done.code == 0, done.out
    return folder


@pytest.fixture
def tool(server: Server, digits: Path) -> Callable[..., Result]:
    """`tool(*arguments)`: the result of `python -m digits *arguments`."""

    def tool(*arguments: object, project: Path = digits) -> Result:
        return server.run(project / "digits/__main__.py", *map(str, arguments), cwd=project)

    return tool


@pytest.fixture
def run(digits: Path, tmp_path: Path) -> Path:
    """A run that was moved out of its project."""
    return shutil.copytree(runs(digits, "seeds")[0], tmp_path / "elsewhere/a run")


@pytest.fixture
def ema_run(digits: Path, tmp_path: Path) -> Path:
    return shutil.copytree(runs(digits, "ema")[0], tmp_path / "elsewhere/ema")
