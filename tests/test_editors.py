"""What editors, notebooks and containers read: their files name what exists, and the notebook's cells work."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.runs import the_run
from helpers.template import ROOT

QUICK = ("epochs=1", "logger=none", "log.level=error", "model=mlp", "workers=0")


def test_launch_configurations_and_tasks_name_what_exists(project: Path):
    launch = json.loads((project / ".vscode/launch.json").read_text(encoding="utf-8"))["configurations"]
    tasks = json.loads((project / ".vscode/tasks.json").read_text(encoding="utf-8"))["tasks"]
    assert min(len(launch), len(tasks)) >= 4
    for one in launch:
        if "program" in one:
            assert (project / one["program"].removeprefix("${workspaceFolder}/")).exists()
        else:
            assert one["module"] in ("digits", "pytest")
    for one in tasks:
        first, *rest = one["args"]
        assert (project / first).exists() or rest[0] in ("digits", "pytest", "tensorboard.main")
    overrides = {word for one in [*launch, *tasks] for word in one["args"] if "=" in word and "{" not in word}
    assert overrides == {"debug=fast", "workers=0", "dry_run=true"}
    assert (project / "configs/debug/fast.yaml").exists()


def test_the_image_is_built_from_files_that_exist(project: Path):
    container = json.loads((project / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    assert (project / ".devcontainer" / container["build"]["dockerfile"]).resolve() == project / "Dockerfile"
    text = (project / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line.strip()]
    assert {word for word, _ in steps} == {"FROM", "RUN", "ENV", "WORKDIR", "COPY", "ENTRYPOINT"}
    (copied,) = [rest.split()[:-1] for word, rest in steps if word == "COPY"]
    assert copied == ["pyproject.toml", "uv.lock*"]
    (entry,) = [json.loads(rest) for word, rest in steps if word == "ENTRYPOINT"]
    assert (project / entry[1]).exists()
    minor = re.search(r"^FROM python:3\.(\d+)-slim$", text, re.MULTILINE)
    least = re.search(r'requires-python = ">=3\.(\d+)"', (project / "pyproject.toml").read_text())
    assert int(minor[1]) >= int(least[1])
    environment = re.search(r"UV_PROJECT_ENVIRONMENT=(\S+)", text)[1]
    settings = container["customizations"]["vscode"]["settings"]
    assert settings["python.defaultInterpreterPath"] == f"{environment}/bin/python"


def test_the_cell_for_colab_keeps_edits_if_it_runs_again(repository, tmp_path):
    page = (ROOT / "docs/editors.md").read_text(encoding="utf-8").partition("## Colab")[2]
    (line,) = re.findall(r"^!(.*copier copy.*)$", page, re.MULTILINE)
    line = line.replace("SOURCE", f"--vcs-ref HEAD {repository}").replace("/content", str(tmp_path))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for edit in ("", "# mine"):
        done = subprocess.run(line, shell=True, env={**os.environ, "PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        config = tmp_path / "project/configs/train.yaml"
        assert config.read_text().endswith(edit)
        config.write_text(f"{config.read_text()}# mine")


def cells(project: Path) -> list[dict]:
    """The code cells of the notebook."""
    notebook = json.loads((project / "notebooks/explore.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_was_executed_and_names_no_machine(project: Path):
    found = cells(project)
    assert [cell["execution_count"] for cell in found] == list(range(1, len(found) + 1))
    outputs = [output for cell in found for output in cell["outputs"]]
    assert "error" not in {output["output_type"] for output in outputs}
    assert any("image/png" in output.get("data", {}) for output in outputs)
    texts = json.dumps([{k: v for k, v in one.get("data", one).items() if k != "image/png"} for one in outputs])
    assert not re.search(r"/(home|root|tmp|work|Users)/", texts)


def test_the_cells_of_the_notebook_work(server, workspace):
    """In a fresh interpreter, one after the other, as Jupyter does it."""
    code = "\n\n".join("".join(cell["source"]) for cell in cells(workspace)).replace("epochs=10", "epochs=3")
    script = workspace / "notebooks/cells.py"
    script.write_text(
        f"import matplotlib\nmatplotlib.use('Agg')\n{code}\nprint(sum(map(int.__eq__, predicted, labels)))"
    )
    done = server.run(script, cwd=workspace / "notebooks")
    assert done.code == 0, done.out
    assert int(done.last) >= 8


@pytest.mark.parametrize("more", [(), ("ema_decay=0.9",)], ids=["plain", "averaged"])
def test_load_run_gives_the_weights_that_evaluate_uses(train, workspace, server, more):
    assert train(*QUICK, *more).code == 0
    script = workspace / "look.py"
    script.write_text(
        "import os, torch\n"
        "os.chdir('/')\n"
        "from digits.engine.launch import compose\n"
        "from digits.engine.tools.open_run import load_run\n"
        "model, data, config = load_run('runs/default')\n"
        "val = data.split('val')\n"
        "pictures, labels = zip(*(val[i] for i in range(len(val))))\n"
        "right = model(torch.stack(pictures)).argmax(1) == torch.tensor([int(label) for label in labels])\n"
        "assert not model.training and config.epochs == 1 and compose('epochs=7').epochs == 7\n"
        "print(right.float().mean().item())\n"
    )
    done = server.run(script, cwd=workspace)
    assert done.code == 0, done.out
    manifest = json.loads((the_run(workspace) / "manifest.json").read_text())
    assert float(done.last) == pytest.approx(manifest["result"]["best"], abs=1e-6)
