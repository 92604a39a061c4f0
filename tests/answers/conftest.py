"""Fixtures: the macros behind the questions, the command, and a refused answer."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jinja2.sandbox
import pytest


@pytest.fixture(scope="session")
def render(render_anew: Callable[..., Path]) -> Callable[..., Path]:
    """Here, rendering itself is tested."""
    return render_anew


@pytest.fixture(scope="session")
def macros(template: Path):
    """The macros behind defaults and validators, in an environment like Copier's."""
    environment = jinja2.sandbox.SandboxedEnvironment(
        loader=jinja2.FileSystemLoader(template),
        extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"],
    )
    return environment.get_template("includes/answers.jinja").module


@pytest.fixture
def cli(template: Path, tmp_path: Path):
    """Runs the real `copier copy` from an empty folder, which it returns with the process."""

    def cli(dst: str, *options: str, **env: str) -> tuple[subprocess.CompletedProcess, Path]:
        folder = tmp_path / "cwd"
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "copier", "copy", "--defaults", *options, template, dst]
        process = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **env},
            capture_output=True,
            encoding="utf-8",
        )
        return process, folder

    return cli


@pytest.fixture
def refused(render: Callable[..., Path], tmp_path: Path):
    """Renders, expects a refusal that leaves nothing behind, and returns its sentence."""

    def refused(**answers: object) -> str:
        with pytest.raises(ValueError, match=r"\A(Validation error for question|Invalid choice)") as error:
            render(tmp_path / "new", **answers)
        assert list(tmp_path.iterdir()) == []
        return re.sub(r"\AValidation error for question '\w+': ", "", str(error.value))

    return refused
