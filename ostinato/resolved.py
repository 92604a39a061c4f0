"""`ostinato check`: check an update that was resolved or merged by hand, as an update checks its own."""

import re
import tempfile
from pathlib import Path

from .changelog import between
from .check import Check
from .errors import Refused, Stopped
from .git import Git
from .merge import borrowing
from .render import as_version
from .update import Asked, Print, find_source, last_update, open_project, recorded, refuse_unclean, trees_to_check

MARKER = re.compile(rb"^[<>]{7} \S", re.MULTILINE)


def check_branch(project: Path, branch: str, asked: Asked, check: Check, say: Print = print) -> None:
    """Compare a branch with the project before its update. It changes nothing.

    Raises `Refused`, or `Stopped` if the updated project is not good.
    """
    git = open_project(project)
    after = None if branch.startswith("-") else git.ask("rev-parse", "--verify", "--quiet", f"{branch}^{{commit}}")
    if after is None:
        raise Refused(f"There is no branch {branch}. `git branch` lists the branches.")
    if branch == "HEAD":
        refuse_unclean(git)
    name = asked.answers_file
    before = _before_update(git, after, name)
    if before is None or git.ask("cat-file", "-e", f"{before}:./{name}") is None:
        raise Refused(f"{branch} holds no update of the template. Name the branch of the update.")
    then, now = (recorded(git, commit, name) for commit in (before, after))
    trees = [git("rev-parse", f"{commit}:./") for commit in (before, after)]
    files = [git.tree(tree) for tree in trees]
    for path, entry in files[1].items():
        if entry != files[0].get(path) and entry[0].startswith("10") and MARKER.search(git.blob(entry[1])):
            raise Stopped(f"{path} still has conflict markers. Choose between them and commit.")
    with tempfile.TemporaryDirectory(prefix="ostinato-check-") as folder:
        temporary = Path(folder)
        source = find_source(asked.source, now["_src_path"], project, temporary, say)
        commits = (source.commit(answers["_commit"]) for answers in (then, now))
        old, new = (source.git.ask("show", f"{commit}:CHANGELOG.md") or "" for commit in commits)
        changes = between(new, as_version(then["_commit"]), old)
        scratch = borrowing(git, temporary / "scratch")
        check(trees_to_check(git, scratch, trees, temporary, changes, str(now["package_name"])), say)
    say(f"{branch} is as good as the project before the update.")


def _before_update(git: Git, commit: str, answers_file: str) -> str | None:
    """Return the commit before the last update in a commit's history, or before the merge that brought it."""
    update = last_update(git, commit, answers_file)
    if update is None:
        return None
    after = set(git("rev-list", "--ancestry-path", f"{update}..{commit}").split())
    since = [one for one in git("rev-list", "--first-parent", f"{update}..{commit}").split() if one in after]
    is_merged = since and git("rev-parse", f"{since[-1]}^") != update
    return git.ask("rev-parse", "--verify", "--quiet", f"{since[-1] if is_merged else update}^")
