"""Owners format the files with settings of their own, or have other line endings: this alone never conflicts."""

import shutil
from pathlib import Path

import pytest
from helpers.formatting import SETTINGS, format_with
from helpers.releases import NEWEST, commit, git, versions
from helpers.updating import Versions, checked_update, contents, write

from ostinato import style

ANSWERS = {"package_name": "digits"}


@pytest.fixture(scope="module")
def rendered(all_versions: Versions) -> Versions:
    return all_versions


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("version", versions())
def test_formatted_files_are_merged_and_stay_formatted(rendered: Versions, tmp_path: Path, version: str, settings: str):
    project = shutil.copytree(rendered.get(version, ANSWERS)[0], tmp_path / "digits")
    git(project, "init", "--quiet")
    commit(project)
    format_with(settings, project)
    with open(project / "digits/engine/losses.py", "a", encoding="utf-8") as file:
        file.write("\n\nMINE = 1\n")
    commit(project)
    edited = git(project, "diff", "--name-only", "HEAD~1").split()
    assert len(edited) > 20

    merged = checked_update(project, rendered, tmp_path / "scratch")

    assert merged.conflicts == {}
    new, is_owned = rendered.get(NEWEST, ANSWERS)
    wanted = shutil.copytree(new, tmp_path / "wanted")
    format_with(settings, wanted)
    after = contents(merged.scratch, merged.tree)
    assert b"\nMINE = 1\n" in after["digits/engine/losses.py"]
    for path in (path.relative_to(wanted).as_posix() for path in wanted.rglob("*.py")):
        if not is_owned(path) and not path.endswith("/losses.py"):
            assert after[path].decode() == (wanted / path).read_text(encoding="utf-8"), path


@pytest.mark.parametrize("settings", ["line-length = 79"])
def test_files_that_nobody_formatted_stay_as_the_template_has_them(rendered: Versions, tmp_path: Path, settings: str):
    version = versions()[-1]
    project = shutil.copytree(rendered.get(version, ANSWERS)[0], tmp_path / "digits")
    git(project, "init", "--quiet")
    project_file = project / "pyproject.toml"
    project_file.write_text(project_file.read_text().replace("line-length = 100", settings))
    commit(project)
    merged = checked_update(project, rendered, tmp_path / "scratch")
    assert merged.conflicts == {}
    new = rendered.get(NEWEST, ANSWERS)[0]
    assert (
        contents(merged.scratch, merged.tree)["digits/engine/loop.py"] == (new / "digits/engine/loop.py").read_bytes()
    )


def test_a_file_that_goes_to_a_folder_that_the_owner_does_not_format(rendered: Versions, tmp_path: Path):
    """As Black leaves out folders of the name build."""
    project = shutil.copytree(rendered.get(versions()[-1], ANSWERS)[0], tmp_path / "digits")
    git(project, "init", "--quiet")
    commit(project)
    format_with('line-length = 79\nextend-exclude = ["build"]', project)
    commit(project)
    assert checked_update(project, rendered, tmp_path / "scratch").conflicts == {}


def test_which_formatter_is_the_owners(tmp_path: Path):
    for name in ("black", "ruff"):
        write(tmp_path, {f".venv/bin/{name}": ""})
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    for text in (b"[tool.black]\n", b"repos:\n- hooks:\n  - id: black-jupyter\n"):
        assert style.formatter(tmp_path, {"x": text})[0].endswith("/black")
    for text in (b"[tool.ruff]\n# as black does it\n", b"[tool.x]\n"):
        assert style.formatter(tmp_path, {"x": text})[0].endswith("/ruff")


@pytest.mark.parametrize(
    ("hooks", "options"),
    [
        ("[{id: black, args: [-l, 79, -S]}]", ["--quiet", "-l", "79", "-S", "."]),
        ("[{id: ruff, args: [--fix]}, {id: ruff-format, args: [--line-length=79]}]", ["--line-length=79", "."]),
        ("[{id: ruff-format}]", ["--no-cache", "."]),
        ("5", ["--no-cache", "."]),
        ("[", ["--no-cache", "."]),
    ],
)
def test_options_of_the_owners_hooks(tmp_path: Path, hooks: str, options: list[str]):
    for name in ("black", "ruff"):
        write(tmp_path, {f".venv/bin/{name}": ""})
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    found = style.formatter(tmp_path, {style.HOOKS: f"repos:\n- hooks: {hooks}\n".encode()})
    assert found[-len(options) :] == options


def test_a_formatter_of_an_environment_that_was_moved(tmp_path: Path):
    assert style.formatted(["/gone/ruff"], {"a.py": b"x"}, {}, tmp_path) == {"a.py": b"x"}
