"""Where an update finds the template: another address, a clone without tags, another answers file."""

import os
import re

import pytest
from helpers.releases import git
from helpers.small_template import LINES
from helpers.updating import edit

from ostinato import update
from ostinato.render import ANSWERS, as_version


def record(project, address):
    text = (project / ANSWERS).read_text()
    edit(project, {ANSWERS: re.sub("(?m)^_src_path: .*", f"_src_path: {address}", text)})


def recorded(project, key="_src_path"):
    return re.search(f"(?m)^{key}: (.*)", (project / ANSWERS).read_text())[1].strip("'")  # a commit may be all digits


def test_source_names_another_address_and_the_project_records_it(project, ostinato, source):
    record(project, "../gone")
    assert ostinato("update").code == 2
    relative = os.path.relpath(source, project)
    result = ostinato("update", "--source", relative)
    assert result.code == 0, result
    assert recorded(project) == str(source)
    assert "line_20 = 'new'" in (project / "digits/engine/loop.py").read_text()


def test_the_address_after_from_is_taken_if_the_recorded_one_does_not_work(project, ostinato, source, monkeypatch):
    """As for a project that was rendered from a folder on another machine."""
    record(project, ".")
    monkeypatch.setattr(update, "_installed_from", lambda: str(source))
    result = ostinato("update")
    assert result.code == 0, result
    assert f"The template is not at ., the recorded address. This update takes and records {source}." in result
    assert recorded(project) == str(source)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ('{"url": "https://github.com/a/b", "vcs_info": {"vcs": "git"}}', "https://github.com/a/b"),
        ('{"url": "https://github.com/a/b%20c"}', "https://github.com/a/b%20c"),
        ('{"url": "file:///home/me/a%20b", "dir_info": {}}', "/home/me/a b"),
        (None, None),
    ],
)
def test_the_address_that_uvx_installs_from(monkeypatch, text, address):
    installed = type("Distribution", (), {"read_text": lambda self, name: text})
    monkeypatch.setattr(update.metadata, "distribution", lambda name: installed())
    assert update._installed_from() == address


def test_a_source_without_tags(project, ostinato, source, tmp_path):
    fork = tmp_path / "fork"
    git(tmp_path, "clone", "--quiet", "--no-tags", str(source), str(fork))
    text = (project / ANSWERS).read_text()
    edit(project, {ANSWERS: re.sub("_commit_id: .*\n", "", text)})  # as releases before 0.3.0 write it
    result = ostinato("update", "--source", str(fork))
    assert result.code == 2
    assert "has no version 0.1.0, the recorded _commit. A fork may lack the tags" in result
    edit(project, {ANSWERS: text})
    assert "has no released version yet. Use --to HEAD" in ostinato("update", "--source", str(fork))
    result = ostinato("update", "--source", str(fork), "--to", "HEAD")
    assert result.code == 0, result
    assert (project / "digits/engine/loop.py").read_text() == LINES
    assert recorded(project, "_commit") in git(source, "rev-parse", "HEAD")
    assert "- a new loop" in result
    assert "nothing to update" in ostinato("update", "--to", "HEAD")


@pytest.mark.parametrize("commit", ["1234567", "12a4567", "12c456789", "abcdef0123456789abcdef0123456789abcdef01"])
def test_a_commit_is_no_version(commit):
    assert as_version(commit) is None


def test_another_templates_answers_file_lies_beside(project, ostinato):
    git(project, "mv", ANSWERS, ".copier-answers.ostinato.yml")
    other = "_commit: 1.0.0\n_src_path: gh:a/b\nname: x\n"
    edit(project, {ANSWERS: other})
    result = ostinato("update")
    assert (result.code, "belongs to another template" in result) == (2, True)
    result = ostinato("update", "--answers-file", "./configs/../.copier-answers.ostinato.yml")
    assert result.code == 0, result
    assert (project / ANSWERS).read_text() == other
    assert "_commit: 0.2.0" in (project / ".copier-answers.ostinato.yml").read_text()
    assert git(project, "status", "--porcelain") == ""
    assert "nothing to update" in ostinato("update", "--answers-file", ".copier-answers.ostinato.yml")
