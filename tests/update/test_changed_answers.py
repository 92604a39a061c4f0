"""Answers that change with an update."""

from helpers.releases import git
from helpers.updating import edit, state

from ostinato.render import ANSWERS


def test_an_answer_is_changed(project, ostinato):
    """Copier deletes the files of an option that is switched off. The next test edits such a file."""
    result = ostinato("update", "--to", "0.1.0", "--data", "ci=gitlab")
    assert result.code == 0, result
    assert (project / ".gitlab-ci.yml").exists()
    assert not (project / ".github").exists()
    assert "ci: gitlab" in (project / ANSWERS).read_text()
    assert ostinato("update").code == 0
    assert "Conflict" not in ostinato("update")


def test_an_answer_is_changed_in_the_file_whatever_the_attributes_of_git(project, ostinato):
    text = (project / ".copier-answers.yml").read_text()
    edit(project, {".copier-answers.yml": text.replace("ci: github", "ci: gitlab")})
    edit(project, {".gitattributes": "*.yml diff=nothing\n"})
    git(project, "config", "diff.nothing.textconv", "true")
    git(project, "config", "log.showRoot", "false")
    result = ostinato("update")
    assert result.code == 0, result
    assert (project / ".gitlab-ci.yml").exists()
    assert not (project / ".github").exists()


def test_an_edited_file_of_an_option_that_is_toggled_off_is_a_conflict(project, ostinato):
    workflow = ".github/workflows/tests.yml"
    edit(project, {workflow: (project / workflow).read_text() + "# mine\n"})
    for toggle in ("--data", "by hand"):
        if toggle == "by hand":
            edit(project, {ANSWERS: (project / ANSWERS).read_text().replace("ci: github", "ci: none")})
        before = state(project)
        result = ostinato("update", *(["--data", "ci=none"] if toggle == "--data" else []))
        assert result.code == 1
        assert f"{workflow}: you changed it, and the new version does not have it" in result
        assert state(project) == before


def test_lines_of_the_owner_in_the_answers_file_are_reported(project, ostinato):
    edit(project, {ANSWERS: (project / ANSWERS).read_text() + "mine: 1\n"})
    result = ostinato("update")
    assert result.code == 0
    assert "Your change of the line 'mine: 1' is dropped." in result
