"""The steps of docs/adoption are executed: an existing project trains with the engine and can be updated."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from helpers.releases import commit, files, git, versions
from helpers.runs import result, the_run
from helpers.template import ROOT
from helpers.updating import Versions, apply, checked_update

FOLDER = ROOT / "docs/adoption"


def test_the_page_brings_the_project_under_the_template(repository: Path, server, tmp_path: Path):
    project = shutil.copytree(FOLDER / "before", tmp_path / "sugar")
    git(project, "init", "--quiet")
    commit(project)
    old = server.run(project / "train.py")
    wanted = float(re.findall(r"error (\S+)", old.out)[-1])
    (project / "model.pt").unlink()

    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    identity = ["git config user.name Me", "git config user.email me@example.org"]
    subprocess.run(["bash", "-euc", "\n".join(identity)], cwd=project, check=True)
    for kind, text in re.findall(r"^```(bash|python|yaml)\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        if kind == "bash":
            source = f"--vcs-ref {versions()[0]} '{repository}'"
            text = text.replace("uvx copier", f"{sys.executable} -m copier").replace("SOURCE", source)
            text = re.sub("^uv run.*\n", "", text, flags=re.MULTILINE)  # below, in one process
            if "git rm --quiet old_train.py" in text:
                done = server.run(project / "train.py", "logger=none")
                assert done.code == 0, done.out
                assert result(the_run(project))["best"] <= wanted + 3
            subprocess.run(["bash", "-euc", text], cwd=project, check=True, capture_output=True)
        else:
            name, content = text.removeprefix("# ").split("\n", 1)
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_text(content)
    assert git(project, "status", "--porcelain") == ""
    before = files(project)
    assert before["README.md"] == (FOLDER / "before/README.md").read_bytes()
    tests = project / "run_tests.py"
    tests.write_text(
        'import sys, pytest\nsys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/test_dataset.py"]))'
    )
    done = server.run(tests)
    assert done.code == 0, done.out
    tests.unlink()

    merged = checked_update(project, Versions(repository, tmp_path / "versions"), tmp_path / "scratch")
    assert merged.conflicts == {}
    apply(merged, project)
    after = files(project)
    for path in ("README.md", ".gitignore", "sugar/__init__.py", "sugar/dataset.py", "sugar/task.py", "sugar/model.py"):
        assert after[path] == before[path], path
    assert not {"sugar/data/parabola.py", "tests/test_task.py", "configs/data/parabola.yaml"} & after.keys()
    done = server.run(project / "train.py", "max_steps=3", "logger=none")
    assert done.code == 0, done.out
