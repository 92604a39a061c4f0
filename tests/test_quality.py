"""Every answer profile renders a project that linters and type checkers accept, and whose own tests pass."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.template import POINTS, ROOT

TEMPLATE = ROOT / "template"
STARTING_POINTS = sorted(POINTS)
PROFILES = list(itertools.product(STARTING_POINTS, ["github", "gitlab", "none"]))
NAMES = ["digits", "x", "n" * 40]


def check(project: Path, *command: str) -> None:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-m", *command], cwd=project, text=True, capture_output=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr


def check_style(project: Path) -> None:
    check(project, "ruff", "check", "--no-cache", ".")
    check(project, "ruff", "format", "--no-cache", "--check", ".")


@pytest.mark.parametrize("starting_point", STARTING_POINTS)
@pytest.mark.parametrize("name", NAMES)
def test_ruff(render, tmp_path, starting_point, name):
    check_style(render(tmp_path / "p", starting_point=starting_point, package_name=name))


@pytest.mark.xdist_group("mypy")
@pytest.mark.parametrize("starting_point", STARTING_POINTS)
def test_mypy(render, tmp_path, mypy_cache, starting_point):
    check(render(tmp_path / "p", starting_point=starting_point), "mypy", "--cache-dir", str(mypy_cache))


@pytest.mark.parametrize("starting_point", STARTING_POINTS)
def test_its_own_tests(render, server, tmp_path, starting_point):
    project = render(tmp_path / "p", starting_point=starting_point)
    if starting_point == "regression":  # in a process of its own, as users run them
        check(project, "pytest", "-q", "-p", "no:cacheprovider")
        return
    done = server.run_tests(project)
    assert done.code == 0, done.out
    assert " passed" in done.last, done.out


@pytest.mark.parametrize(("starting_point", "ci"), PROFILES)
def test_every_profile_trains_and_passes_ruff(render, server, tmp_path, starting_point, ci):
    project = render(tmp_path / "p", starting_point=starting_point, ci=ci)
    check_style(project)
    done = server.run(project / "train.py", "epochs=1", "max_steps=5", "limit_val_batches=2")
    assert done.code == 0, done.out


def test_no_jinja_in_python_below_the_package():
    """So these files can be opened, linted and run in the template itself."""
    package = "{{ package_name }}"
    paths = [path for folder in (TEMPLATE, *POINTS.values()) for path in (folder / package).rglob("*")]
    assert any(path.name == "loop.py" for path in paths)
    for path in paths:
        assert path.suffix != ".jinja"
        if path.suffix == ".py":
            assert "{%" not in path.read_text(), path
            assert "package_name" not in path.read_text(), path


@pytest.mark.parametrize(
    "path", sorted(TEMPLATE.glob("**/configs/*/*.yaml")), ids=lambda p: f"{p.parent.name}={p.stem}"
)
def test_every_choice_says_how_to_choose_it(path):
    assert f"python train.py {path.parent.name}={path.stem}" in path.read_text()
