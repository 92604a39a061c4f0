"""What is rendered, without trust, network or leftovers."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers.answers import QUESTIONS, files
from helpers.template import PROFILES


@pytest.mark.parametrize("answers", PROFILES.values(), ids=PROFILES)
def test_every_profile_renders_the_same_bytes_twice(render: Callable[..., Path], tmp_path: Path, answers):
    first, second = render(tmp_path / "one", **answers), render(tmp_path / "two", **answers)
    assert files(first) == files(second)
    assert not [name for name in files(first) if name.endswith(".jinja")]
    ci = answers.get("ci", "github")
    assert (first / ".github/workflows/tests.yml").exists() == (ci == "github")
    assert (first / ".github").exists() == (ci == "github")
    assert (first / ".gitlab-ci.yml").exists() == (ci == "gitlab")


def test_rendering_needs_no_trust(template: Path):
    config = yaml.safe_load((template / "copier.yml").read_text())
    assert not {"_tasks", "_migrations", "_jinja_extensions", "_external_data"} & set(config)
    assert [key for key in config if not key.startswith("_")] == QUESTIONS
    assert all(config[name].get("help") and "default" in config[name] for name in QUESTIONS)
    assert all({"validator", "choices"} & set(config[name]) for name in QUESTIONS)


def test_rendering_needs_no_network(render: Callable[..., Path], tmp_path: Path, monkeypatch):
    def connect(*args):
        raise AssertionError(f"connected to {args}")

    monkeypatch.setattr(socket, "socket", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    assert render(tmp_path / "new").joinpath("pyproject.toml").exists()


def test_the_command_needs_no_git_and_names_the_next_steps(cli):
    process, folder = cli("my new/project", PATH="")
    assert process.returncode == 0, process.stderr
    assert (folder / "my new/project/pyproject.toml").exists()
    steps = ["  cd 'my new/project'", "  uv run python train.py", "  uv run pytest"]
    assert "\n".join(steps) in process.stderr
    assert "git init" in process.stderr
    assert "copier update" in process.stderr


def test_leftovers_of_development_are_not_rendered(template: Path, render: Callable[..., Path], tmp_path: Path):
    source = shutil.copytree(template, tmp_path / "source")
    root, package = source / "template", source / "template/{{ package_name }}"
    before = files(render(tmp_path / "before", source))
    for path in [
        root / ".DS_Store",
        root / ".venv/pyvenv.cfg",
        root / "__pycache__/train.cpython-313.pyc",
        root / "data/archive.tar.gz",
        root / "runs/default/metrics.jsonl",
        root / "tests/engine/__pycache__/test_loop.cpython-313.pyc",
        root / "tests/engine/stray.pyc",
        root / "uv.lock",
        root / "~lock",
        package / ".ruff_cache/CACHEDIR.TAG",
        package / "engine/.mypy_cache/a.json",
        package / "engine/__pycache__/loop.cpython-313.pyc",
        package / "engine/loop.py~",
    ]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{{ never rendered }}")
    for path in [package / "data/probe.py", package / "engine/runs/probe.py"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    after = files(render(tmp_path / "after", source))
    assert set(after) - set(before) == {
        "my_project/data/probe.py",
        "my_project/engine/runs/probe.py",
    }


def test_the_answers_file_holds_all_answers(render: Callable[..., Path], tmp_path: Path):
    project = render(tmp_path / "new", project_name="Cats & Dogs")
    stored = yaml.safe_load((project / ".copier-answers.yml").read_text())
    assert {name: stored[name] for name in QUESTIONS} == {
        "project_name": "Cats & Dogs",
        "package_name": "cats_dogs",
        "description": "A PyTorch training project.",
        "author": "Me",
        "starting_point": "image_classification",
        "ci": "github",
        "updates": "weekly",
    }
    kept = {"package_name": "cats_dogs", "starting_point": "image_classification", "lean": True}
    assert stored["rendered_as"] == kept
    assert set(stored) == {*QUESTIONS, "_src_path", "rendered_as"}
