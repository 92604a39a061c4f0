"""Plain Copier renews every path of the template's and leaves every path of yours alone: a probe lies at each."""

import shutil
from pathlib import Path

import copier
import yaml
from helpers.releases import commit, files, git
from helpers.template import POINTS

YOURS = [
    "README.md",
    "configs/train.yaml",
    "configs/experiment/probe.yaml",
    "PACKAGE/task.py",
    "PACKAGE/losses.py",
    "PACKAGE/metrics.py",
    "PACKAGE/data/probe.py",
    "PACKAGE/models/probe.py",
    "PACKAGE/models/deep/probe.py",
    "tests/test_probe.py",
    "tests/conftest.py",
    "tests/deep/test_probe.py",
]

OURS = [
    "probe.py",
    "README.txt",
    "configs/data/probe.yaml",
    "configs/model/train.yaml",
    "configs/model/experiment/probe.yaml",
    "PACKAGE/probe.py",
    "PACKAGE/engine/probe.py",
    "PACKAGE/engine/README.md",
    "PACKAGE/engine/losses.py",
    "PACKAGE/engine/task.py",
    "PACKAGE/engine/data/probe.py",
    "PACKAGE/engine/datasets/probe.py",
    "PACKAGE/engine/models/probe.py",
    "PACKAGE/engine/tests/probe.py",
    "PACKAGE/engine/tools/probe.py",
    "tests/engine/conftest.py",
    "tests/engine/test_probe.py",
    "tests/engine/deep/test_probe.py",
]


def fill(folder: Path, package: str, paths: list[str], text: str) -> None:
    for path in paths:
        file = folder / path.replace("PACKAGE", package)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_an_update_renews_the_templates_files_and_leaves_yours_alone(template: Path, tmp_path: Path):
    source = shutil.copytree(template, tmp_path / "source")
    git(source, "init", "--quiet")
    for version in ["v1", "v2"]:
        body = "\n".join(["# probe", *(f"# line {n}" for n in range(9)), f"# {version}", ""])
        shared, point = source / "template", source / "template" / POINTS["image_classification"].name
        for folder, paths in ((point, YOURS), (shared, OURS)):
            fill(folder, "{{ package_name }}", paths, body)
            for path in paths:  # a real file with .jinja after the same name would win
                file = folder / path.replace("PACKAGE", "{{ package_name }}")
                file.with_name(f"{file.name}.jinja").unlink(missing_ok=True)
        if version == "v2":
            fill(point, "{{ package_name }}", ["configs/experiment/late.yaml"], "")
            fill(source / "template", "{{ package_name }}", ["PACKAGE/engine/late.py"], "")
        commit(source, version)

    project = tmp_path / "project"
    options = {"defaults": True, "quiet": True, "unsafe": False, "settings": copier.Settings()}
    copier.run_copy(str(source), project, {"package_name": "cats"}, vcs_ref="v1", **options)
    git(project, "init", "--quiet")
    commit(project)
    paths = [project / path.replace("PACKAGE", "cats") for path in YOURS]
    edited, deleted, untouched = paths[0::3], paths[1::3], paths[2::3]
    assert all(path.read_text().endswith("# v1\n") for path in paths)
    for path in edited:
        path.write_text("# mine\n" + path.read_text())
    for path in deleted:
        path.unlink()
    added = [project / "cats/models/mine.py", project / "cats/engine/mine.py"]
    for path in added:
        path.write_text("# mine\n")
    engine = project / "cats/engine/probe.py"
    engine.write_text("# mine\n" + engine.read_text())
    commit(project)
    before = files(project)

    copier.run_update(project, overwrite=True, **options)

    stored = yaml.safe_load((project / ".copier-answers.yml").read_text())
    assert stored["_commit"] == "v2"
    for path in edited + untouched + added:
        assert path.read_bytes() == before[path.relative_to(project).as_posix()]
    assert not [path for path in deleted if path.exists()]
    assert not (project / "configs/experiment/late.yaml").exists()
    assert (project / "cats/engine/late.py").exists()
    for path in OURS:
        text = (project / path.replace("PACKAGE", "cats")).read_text()
        assert text.startswith("# probe\n") or path == "PACKAGE/engine/probe.py"
        assert text.endswith("# line 8\n# v2\n"), path
    assert engine.read_text().startswith("# mine\n# probe\n")
    changed = {line[3:] for line in git(project, "status", "--porcelain", "-uall").splitlines()}
    expected = {path.replace("PACKAGE", "cats") for path in OURS}
    assert changed == {*expected, ".copier-answers.yml", "cats/engine/late.py"}
