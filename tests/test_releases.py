"""Releases: unedited projects of each are updated to the working tree, and scripts/release.py makes a new one."""

import re
import runpy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.releases import NEWEST, RENDERED, commit, files, git, template_part, versions
from helpers.template import PROFILES, ROOT
from helpers.updating import Versions, answers_of, apply, checked_update, plain_update

from ostinato.render import ownership

ALL = [*versions(), NEWEST]


RELEASED = {name: answers for name, answers in PROFILES.items() if name != "tabular"}
"""Without the starting point that the first releases lack."""


@pytest.fixture(scope="module")
def rendered(all_versions: Versions) -> Versions:
    return all_versions


@pytest.fixture
def start(rendered: Versions, tmp_path: Path) -> Callable[..., Path]:
    """`start(version, answers)`: a new project of that version, under git."""

    def start(version: str, answers: dict[str, object]) -> Path:
        project = tmp_path / version
        shutil.copytree(rendered.get(version, answers)[0], project)
        git(project, "init", "--quiet")
        commit(project)
        return project

    return start


# --- Every release x every profile


@pytest.mark.parametrize("answers", RELEASED.values(), ids=RELEASED)
def test_every_release_updates_to_the_newest_without_a_conflict(
    start, rendered: Versions, template: Path, tmp_path: Path, answers: dict[str, object]
):
    """In one step, the default answers also in several. The template's files are then those of the newest version."""

    def yours(project: Path) -> dict[str, bytes]:
        return {path: content for path, content in files(project).items() if owned(path)}

    for place, version in enumerate(versions()):
        project = start(version, answers)
        fresh, _ = rendered.get(NEWEST, answers_of(rendered.get(version, answers)[0]))  # as lean as the old project
        owned = ownership(template, answers_of(fresh))
        began, mine = git(project, "rev-parse", "HEAD").strip(), yours(project)
        steps = ALL[place + 1 :]
        ways = [[NEWEST], steps] if len(steps) > 1 and answers == PROFILES["defaults"] else [[NEWEST]]
        for way in ways:
            git(project, "reset", "--quiet", "--hard", began)
            for step in way:
                merged = checked_update(project, rendered, tmp_path / f"{version} to {step} of {len(way)}", step)
                assert (merged.conflicts, merged.notes) == ({}, {})
                apply(merged, project)
            assert template_part(project, owned) == template_part(fresh, owned)
            assert yours(project) == mine
        again = checked_update(project, rendered, tmp_path / f"{version} again")
        assert git(project, "rev-parse", "HEAD^{tree}").strip() == again.tree


@pytest.mark.parametrize("answers", [PROFILES["unicode"], PROFILES["regression"]], ids=["unicode", "regression"])
def test_plain_copier_updates_through_all_releases(
    start, rendered: Versions, template: Path, answers: dict[str, object]
):
    fresh, _ = rendered.get(NEWEST, answers_of(rendered.get(ALL[0], answers)[0]))
    owned = ownership(template, answers_of(fresh))
    project = start(ALL[0], answers)
    for version in ALL[1:]:
        plain_update(project, version)
        assert f"_commit: {version}" in (project / ".copier-answers.yml").read_text()
    assert template_part(project, owned) == template_part(fresh, owned)
    before = files(project)
    plain_update(project)
    assert files(project) == before


# --- The archives


def test_archives_hold_what_is_rendered_and_no_more(repository: Path):
    for version in versions():
        names = git(repository, "ls-tree", "--name-only", version).split()
        assert sorted(names) == sorted(RENDERED)
        changes = git(repository, "show", f"{version}:CHANGELOG.md")
        assert re.search(rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", changes, re.MULTILINE), version
        assert "## Unreleased" not in changes


def test_the_newest_changelog_keeps_what_releases_said(repository: Path):
    newest = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for version in versions():
        log = git(repository, "show", f"{version}:CHANGELOG.md")
        assert log[log.index(f"## {version}") :] in newest


# --- scripts/release.py


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small template with one release before."""
    root = tmp_path / "ostinato"
    (root / "template").mkdir(parents=True)
    (root / "includes").mkdir()
    (root / "scripts").mkdir()
    for name in ("template/train.py", "includes/answers.jinja", "copier.yml", "secret.txt"):
        (root / name).write_text(f"# {name}\n")
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- New.\n\n## 0.1.0 (2026-01-01)\n\n- Old.\n")
    (root / "pyproject.toml").write_text('[project]\nname = "ostinato"\nversion = "0.1.0"\n')
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "config", "user.name", "Me")
    git(root, "config", "user.email", "me@example.org")
    commit(root, "0.1.0")
    return root


@pytest.fixture(scope="module")
def release() -> Callable[[Path, str, str], None]:
    return runpy.run_path(str(ROOT / "scripts/release.py"))["release"]


def test_a_release_is_dated_archived_committed_and_tagged(release, tree: Path, tmp_path: Path):
    release(tree, "0.2.0", "2026-02-03")
    log = (tree / "CHANGELOG.md").read_text()
    assert log == "# Changelog\n\n## 0.2.0 (2026-02-03)\n\n- New.\n\n## 0.1.0 (2026-01-01)\n\n- Old.\n"
    assert 'version = "0.2.0"' in (tree / "pyproject.toml").read_text()
    assert git(tree, "status", "--porcelain") == ""
    assert git(tree, "describe").strip() == "0.2.0"
    shutil.unpack_archive(tree / "tests/releases/0.2.0.tar.gz", tmp_path / "out", filter="data")
    assert set(files(tmp_path / "out")) == {"copier.yml", "includes/answers.jinja", "template/train.py", "CHANGELOG.md"}
    assert (tmp_path / "out/CHANGELOG.md").read_text() == log


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("next", "next is not a version. Write it like 0.2.0."),
        ("v0.2.0", "v0.2.0 is not a version. Write it like 0.2.0."),
        ("0.1.0", "0.1.0 is already released. Choose a higher version."),
        ("0.0.9", "0.1.0 is already released. Choose a higher version."),
    ],
)
def test_versions_that_are_refused(release, tree: Path, version: str, sentence: str):
    before = files(tree)
    with pytest.raises(SystemExit) as error:
        release(tree, version, "2026-02-03")
    assert str(error.value) == sentence
    assert files(tree) == before


def test_trees_that_are_refused(release, tree: Path):
    (tree / "new.txt").write_text("")
    with pytest.raises(SystemExit, match="not committed"):
        release(tree, "0.2.0", "2026-02-03")
    (tree / "new.txt").unlink()
    (tree / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 0.1.0 (2026-01-01)\n\n- Old.\n")
    commit(tree)
    with pytest.raises(SystemExit, match="has nothing under Unreleased"):
        release(tree, "0.2.0", "2026-02-03")
    assert subprocess.check_output(["git", "tag"], cwd=tree, text=True).split() == ["0.1.0"]
