"""`ostinato check`: check an update that was resolved or merged by hand, as an update checks its own."""

import re
import tempfile
from pathlib import Path

from .changelog import between
from .check import Check
from .errors import Refused, Stopped
from .git import Git
from .merge import borrowing
from .render import Source, answers_in, as_version
from .update import Asked, Print, find_source, last_update, open_project, trees_to_check

MARKER = re.compile(rb"^<{7} \S", re.MULTILINE)


def check_branch(project: Path, branch: str, asked: Asked, check: Check, say: Print = print) -> None:
    """Compare a branch with the project before its update. It changes nothing.

    Raises `Refused`, or `Stopped` if the updated project is not good.
    """
    git = open_project(project)
    after = None if branch.startswith("-") else git.ask("rev-parse", "--verify", "--quiet", f"{branch}^{{commit}}")
    if after is None:
        raise Refused(f"There is no branch {branch}. `git branch` lists the branches.")
    before = _before_update(git, after, asked.answers_file)
    if before is None:
        raise Refused(f"{branch} holds no update of the template. Name the branch of the update.")
    for path in git.names("diff", "--name-only", "-z", "--diff-filter=d", "--no-ext-diff", "--relative", before, after):
        if MARKER.search(git.output("show", f"{after}:./{path}")):
            raise Stopped(f"{path} still has conflict markers. Choose between them and commit.")
    texts = [git("show", f"{commit}:./{asked.answers_file}") for commit in (before, after)]
    then, now = (answers_in(text, asked.answers_file) for text in texts)
    package = f"/{now['package_name']}/__init__.py"
    homes = [path.removesuffix(package) for path in _files(git, after) if path.endswith(package)]
    with tempfile.TemporaryDirectory(prefix="ostinato-check-") as folder:
        temporary = Path(folder)
        source = find_source(asked.source, str(now["_src_path"]), project, temporary, say)
        old, new = (_changelog(source, str(answers["_commit"])) for answers in (then, now))
        changes = between(new, as_version(str(then["_commit"])), old)
        trees = [git("rev-parse", f"{commit}:./") for commit in (before, after)]
        scratch = borrowing(git, temporary / "scratch")
        home = Path(min(homes, key=len).removeprefix("/")) if homes else Path()
        check(trees_to_check(git, scratch, trees, temporary, changes, home), say)
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


def _files(git: Git, commit: str) -> list[str]:
    return [f"/{path}" for path in git.tree(git("rev-parse", f"{commit}:./"))]


def _changelog(source: Source, version: str) -> str:
    return source.git.ask("show", f"{source.commit(version)}:CHANGELOG.md") or ""
