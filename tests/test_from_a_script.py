"""The steps of docs/from-a-script are executed: the project reaches what the script reached."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.runs import result, the_run

FOLDER = Path(__file__).resolve().parents[1] / "docs/from-a-script"
PAGE = (FOLDER / "README.md").read_text()


@pytest.fixture
def project(render, tmp_path):
    project = render(tmp_path / "spirals", project_name="Spirals", package_name="spirals")
    for text in re.findall(r"^```(?:python|yaml)\n# (.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        name, content = text.split("\n", 1)
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(content)
    return project


def test_the_project_reaches_what_the_script_did(project, server, tmp_path):
    script = [sys.executable, FOLDER / "spirals.py", "--out", tmp_path / "out"]
    printed = subprocess.check_output(script, text=True)
    wanted = float(re.search(r"best val acc (\S+)", printed)[1])
    assert wanted > 0.9
    done = server.run(project / "train.py", "logger=none")
    assert done.code == 0, done.out
    folder = the_run(project, "spirals")
    assert result(folder)["best"] >= wanted - 0.01
    assert "center" in done.out
    done = server.run(project / "spirals/__main__.py", "evaluate", str(folder))
    assert done.code == 0, done.out
    done = server.run(project / "spirals/__main__.py", "reproduce", str(folder), "--stop-at", "100", "--workers", "1")
    assert done.code == 0, done.out


def test_the_page_and_the_script_share_their_defaults(project, server):
    """The result would differ if the page forgot a default of the script."""
    script = (FOLDER / "spirals.py").read_text()
    configs = "".join(path.read_text() for path in (project / "configs").rglob("*.yaml"))
    names = {"center-weight": "weight", "batch-size": "batch_size"}
    for name in ("hidden", "points", "jitter", "classes", "center-weight", "lr", "epochs", "batch-size"):
        key = names.get(name, name)
        default = re.search(rf'"--{name}", type=\w+, default=([\d.e-]+)', script)[1]
        assert re.search(rf"^ *{key}: {re.escape(default)}\b", configs, re.MULTILINE), name
    assert server.run(project / "train.py", "dry_run=true").code == 0


@pytest.mark.xdist_group("mypy")
def test_types_and_style(project, mypy_cache):
    types = ["mypy", "--cache-dir", str(mypy_cache)]
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "spirals"], types):
        done = subprocess.run([sys.executable, "-m", *command], cwd=project, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
