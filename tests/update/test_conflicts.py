"""After a conflict or a failed check the project is as before, and a branch holds the update."""

import pytest
from helpers.releases import git
from helpers.small_template import LINES, changed, failing
from helpers.updating import edit, state


def test_a_conflict_names_where_code_of_the_file_went(project, ostinato):
    edit(project, {"digits/engine/rewritten.py": changed(LINES.replace("line", "part"), 15, "part_15 = 'mine'")})
    said = ostinato("update")
    assert said.code == 1
    (line,) = (line for line in said.splitlines() if line.startswith("  digits/engine/folder/first.py: "))
    assert line.endswith("Code of digits/engine/rewritten.py is now in digits/engine/folder/second.py.")
    assert "part_15 = 'mine'" in git(project, "show", "ostinato-update-0.2.0:digits/engine/folder/first.py")


@pytest.mark.parametrize(
    ("path", "text", "said", "branch_holds"),
    [
        ("digits/engine/loop.py", changed(LINES, 20, "line_20 = 'mine'"), "changed the same lines", "<<<<<<< yours"),
        ("digits/engine/gone.py", "mine\n", "does not have it", "mine"),
    ],
)
def test_a_conflict_leaves_the_project_and_a_branch(project, ostinato, path, text, said, branch_holds):
    edit(project, {path: text})
    before = state(project)
    result = ostinato("update")
    assert result.code == 1
    assert f"{path}: " in result
    assert said in result
    assert "git switch ostinato-update-0.2.0" in result
    assert state(project) == before
    assert branch_holds in git(project, "show", f"ostinato-update-0.2.0:{path}")
    assert "line_20 = 'new'" in git(project, "show", "refs/ostinato/template:digits/engine/loop.py")
    assert "line_20 = 'new'" in git(project, "show", "ostinato-update-0.2.0:digits/engine/new_name.py").replace(
        "name", "line"
    )

    assert ostinato("update").code == 1  # again, over the branch that nobody touched
    assert "Deleted the branch ostinato-update-0.2.0" in ostinato("update", "--abort")
    assert git(project, "branch", "--format=%(refname:short)").split() == ["main"]
    assert state(project) == before


def test_a_choice_that_the_template_drops_stays(project, ostinato):
    edit(project, {"configs/model/gone.yaml": "width: 16\n"})
    result = ostinato("update")
    assert result.code == 0, result
    assert "configs/model/gone.yaml: you changed it, and the new version does not have it. Yours stays." in result
    assert (project / "configs/model/gone.yaml").read_text() == "width: 16\n"


def test_a_conflict_can_be_resolved_on_the_branch(project, ostinato):
    edit(project, {"digits/engine/loop.py": changed(LINES, 20, "line_20 = 'mine'")})
    assert ostinato("update").code == 1
    git(project, "switch", "--quiet", "ostinato-update-0.2.0")
    edit(project, {"digits/engine/loop.py": changed(LINES, 20, "line_20 = 'both'")})
    git(project, "switch", "--quiet", "main")
    result = ostinato("update")
    assert result.code == 2
    assert "has your commits" in result
    assert "stays: it is checked out or has your commits" in ostinato("update", "--abort")
    git(project, "merge", "--quiet", "ostinato-update-0.2.0")
    assert "nothing to update" in ostinato("update")


def test_a_resolution_that_amends_the_commit_is_kept(project, ostinato):
    edit(project, {"digits/engine/loop.py": changed(LINES, 20, "line_20 = 'mine'")})
    assert ostinato("update").code == 1
    git(project, "switch", "--quiet", "ostinato-update-0.2.0")
    (project / "digits/engine/loop.py").write_text(changed(LINES, 20, "line_20 = 'both'"))
    git(project, "commit", "--quiet", "--all", "--amend", "--no-edit")
    git(project, "switch", "--quiet", "main")
    assert "has your commits" in ostinato("update")
    assert "stays: it is checked out or has your commits" in ostinato("update", "--abort")


def test_a_failing_check_leaves_the_project_and_a_branch(project, ostinato):
    before = state(project)
    result = ostinato("update", check=failing)
    assert result.code == 1
    assert "It does not train." in result
    assert state(project) == before
    assert git(project, "rev-parse", "ostinato-update-0.2.0~1") == git(project, "rev-parse", "main")
    assert ostinato("update").code == 0  # and the branch of the earlier try is gone
    assert git(project, "branch", "--format=%(refname:short)").split() == ["main"]
