"""A project with a finished and a stopped run. Each test takes a copy."""

import shutil
from pathlib import Path

import pytest

QUICK = ("model=mlp", "model.hidden=[8]", "max_steps=2", "logger=none", "log.curves=false", "workers=0")


@pytest.fixture(scope="package")
def source(project, server, tmp_path_factory) -> Path:
    folder = shutil.copytree(project, tmp_path_factory.mktemp("shared") / "digits")
    assert server.run(folder / "train.py", *QUICK).code == 0
    assert server.run(folder / "train.py", *QUICK, "name=stopped", "max_minutes=1e-9").code == 75
    return folder


@pytest.fixture
def shared(source, tmp_path) -> Path:
    return shutil.copytree(source, tmp_path / "digits")


@pytest.fixture
def verb(server, shared):
    """`verb("evaluate", run)`: the result of `python -m digits evaluate RUN`."""
    return lambda *arguments: server.run(shared / "digits/__main__.py", *map(str, arguments), cwd=shared)
