"""`ostinato check` checks an update that was resolved or merged by hand."""

import pytest
from helpers.releases import git
from helpers.small_template import LINES, changed, failing
from helpers.updating import edit, state, write

BRANCH = "ostinato-update-0.2.0"


@pytest.fixture
def resolved(project, ostinato):
    """A project with a conflict that is resolved on the update's branch, which is checked out."""
    edit(project, {"digits/engine/loop.py": changed(LINES, 20, "line_20 = 'mine'")})
    result = ostinato("update")
    assert result.code == 1
    assert f"ostinato check {BRANCH}" in result
    assert "loop.py still has conflict markers" in ostinato("check", BRANCH)
    git(project, "switch", "--quiet", BRANCH)
    edit(project, {"digits/engine/loop.py": changed(LINES, 20, "line_20 = 'both'")})
    return project


def look(trees, say):
    """What a check sees of the two projects."""
    before, after = ((folder / "digits/engine/loop.py").read_text() for folder in (trees.before, trees.after))
    say(f"{before.splitlines()[20]} | {after.splitlines()[20]} | {'a new loop' in trees.changes.text}")
    say(f"changed: {' '.join(trees.changed)}")


@pytest.mark.parametrize("where", ["the branch", "another branch", "merged", "merged and gone on"])
def test_a_resolved_conflict_is_checked(resolved, ostinato, where):
    if where != "the branch":
        git(resolved, "switch", "--quiet", "main")
    arguments = [BRANCH] if where == "another branch" else []
    if where.startswith("merged"):
        edit(resolved, {"digits/task.py": "mine, meanwhile\n"})
        git(resolved, "merge", "--quiet", BRANCH)
    if where == "merged and gone on":
        edit(resolved, {"digits/losses.py": "mine, later\n"})
    before = state(resolved)
    result = ostinato("check", *arguments, check=look)
    assert result.code == 0, result
    assert "line_20 = 'mine' | line_20 = 'both' | True" in result
    assert ("digits/losses.py" in result) == (where == "merged and gone on")
    assert "digits/task.py" not in result
    assert state(resolved) == before


def test_a_resolution_that_is_half_done_or_not_committed(resolved, ostinato):
    write(resolved, {"digits/engine/loop.py": "not committed\n"})
    result = ostinato("check")
    assert (result.code, "loop.py has changes that are not committed" in result) == (2, True)
    assert ostinato("check", BRANCH).code == 0  # what is checked out does not matter then
    edit(resolved, {"digits/engine/loop.py": changed(LINES, 20, ">>>>>>> template-0.2.0")})
    result = ostinato("check")
    assert (result.code, "loop.py still has conflict markers" in result) == (1, True)


def test_a_check_that_fails(resolved, ostinato):
    result = ostinato("check", check=failing)
    assert (result.code, "It does not train." in result) == (1, True)


def test_what_plain_copier_merged_is_checked(project, ostinato):
    text = (project / ".copier-answers.yml").read_text()
    edit(project, {".copier-answers.yml": text.replace("_commit: 0.1.0", "_commit: 0.2.0"), "digits/task.py": "x\n"})
    result = ostinato("check", check=look)
    assert result.code == 0, result
    assert "line_20 = 20 | line_20 = 20 | True" in result


@pytest.mark.parametrize(
    ("answers", "sentence"), [(None, "is not committed"), ("_commit: 0.2.0\n", "has no _src_path"), ("[", "be read")]
)
def test_a_branch_whose_answers_are_gone(resolved, ostinato, answers, sentence):
    edit(resolved, {".copier-answers.yml": answers})
    git(resolved, "switch", "--quiet", "main")
    result = ostinato("check", BRANCH)
    assert (result.code, sentence in result, len(result.splitlines())) == (2, True, 1), result


def test_a_project_that_came_under_the_template_just_now(project, ostinato):
    answers = (project / ".copier-answers.yml").read_text()
    edit(project, {".copier-answers.yml": None})
    edit(project, {".copier-answers.yml": answers})
    assert "HEAD holds no update of the template" in ostinato("check")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "There is no branch nowhere"),
        ([], "HEAD holds no update of the template"),
        (["one", "two"], "Two branches are named, one and two. Name one."),
    ],
)
def test_what_cannot_be_checked(project, ostinato, arguments, sentence):
    result = ostinato("check", *arguments)
    assert (result.code, sentence in result) == (2, True), result
