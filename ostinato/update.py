"""`ostinato update`: the steps, in order. Only the last step touches the project."""

import contextlib
import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from lzma import LZMAError
from pathlib import Path
from tarfile import TarError
from typing import Any
from urllib.parse import unquote

from .changelog import Changes, between
from .check import Check, Trees
from .errors import Refused, Stopped
from .git import Git, GitFailed
from .layout import folder_of
from .merge import Merge, merge
from .render import (
    ANSWERS,
    RENDERED,
    Answers,
    Source,
    answers_in,
    as_version,
    moved_code,
    ownership,
    rendered,
    unpacked,
)
from .state import BRANCH, TEMPLATE, TRIED, Note, State

TRAILER = "Ostinato-Update:"
UNDER_WAY = ("MERGE_HEAD", "rebase-merge", "rebase-apply", "CHERRY_PICK_HEAD", "REVERT_HEAD")
NOT_LINKED = {"runs", "outputs", "multirun", "wandb", "mlruns", "build", "dist", "htmlcov", "venv", "node_modules"}
"""Ignored files that the checks do not need, besides names that begin with a dot or an underscore."""
FIXED = {
    "package_name": "your files would keep the old name",
    "starting_point": "your files belong to the old one",
}
"""Answers that an update cannot change, and why."""
Print = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What the user asks for."""

    to: str | None = None
    """A version; the newest by default."""
    data: Mapping[str, str] = field(default_factory=dict)
    """Changed answers."""
    source: str | None = None
    """Where the template lies; by default where the answers file says."""
    answers_file: str = ANSWERS
    dry_run: bool = False


def find_project(folder: Path, answers_file: str) -> Path:
    """Return the project that holds the folder. Raises `Refused`."""
    if answers_file.startswith(("/", "..")):
        raise Refused(f"--answers-file {answers_file} does not begin at the project's root. Name it from there.")
    for place in (folder, *folder.parents):
        if (place / answers_file).is_file():
            return place
    raise Refused(
        f"There is no {answers_file} here or in a folder above. Run this in a project made from the template, or name "
        "its answers file with --answers-file."
    )


def update(project: Path, asked: Asked, check: Check, say: Print = print) -> None:
    """Update the project, or raise `Refused` or `Stopped` and leave it unchanged.

    `check` raises `Stopped` if the updated project is not good.
    """
    git = open_project(project)
    with contextlib.closing(State(git)) as state:
        if (said := state.put_back()) is not None:
            say(said)
        refuse_unclean(git)
        temporary = Path(tempfile.mkdtemp(prefix="ostinato-update-"))
        head = git("rev-parse", "HEAD")
        try:
            state.write(Note(str(temporary), head))
            _update(git, state, temporary, asked, check, say)
        except Exception as error:
            if _is_full(error):
                raise Stopped(f"{error}\n{_no_space(temporary, project)}") from error
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if (note := state.read()) is None or note.commit is None:
                state.clear()


def abort(project: Path, say: Print = print) -> None:
    """Restore the files after a killed update, and delete the branches of updates without commits of the user."""
    git = open_project(project)
    with contextlib.closing(State(git)) as state:
        said = [text] if (text := state.put_back()) else []
        for branch in git("for-each-ref", "--format=%(refname:short)", f"refs/heads/{BRANCH}*").split():
            if not _is_untouched(git, branch):
                said.append(
                    f"The branch {branch} stays: it is checked out or has your commits. `git branch -D` deletes it."
                )
            else:
                _delete(git, branch)
                said.append(f"Deleted the branch {branch}.")
    say("\n".join(said) or "There is no update to abort.")


def open_project(project: Path) -> Git:
    git = Git(project)
    code, out, said = git.run("rev-parse", "--is-inside-work-tree")
    if code != 0 or out.strip() != b"true":
        if "dubious ownership" in said:
            raise Refused(
                f"git does not trust {project}, because it belongs to another user. See git's safe.directory."
            )
        raise Refused("The project is not a git repository, so an update could not be undone. Run git init and commit.")
    if git.ask("rev-parse", "--verify", "HEAD") is None:
        raise Refused("The project has no commit yet, so an update could not be undone. Run git add and commit.")
    return git


def refuse_unclean(git: Git) -> None:
    paths = git("rev-parse", *(word for name in UNDER_WAY for word in ("--git-path", name))).splitlines()
    for place in map(git.folder.joinpath, paths):
        if place.exists():
            what = re.sub("_head|-merge|-apply", "", place.name.lower()).replace("_", "-")
            raise Refused(f"A git {what} is under way. Finish or abort it first.")
    top, prefix = Path(git("rev-parse", "--show-toplevel")), git("rev-parse", "--show-prefix")
    for row in git.names("status", "--porcelain", "-z", "--ignore-submodules=dirty"):
        path, is_staged = row[3:], row[0] not in " ?"
        if is_staged or (path.startswith(prefix) and row[0] != "?"):
            raise Refused(
                f"{path} has changes that are not committed. Commit, stash or delete such files, then update."
            )
        if path.startswith(prefix) and not (top / path).is_symlink():  # such as a link to a big disk
            name = path.removeprefix(prefix).rstrip("/")
            raise Refused(f"{path} is untracked. Commit it, delete it, or write /{name} into .gitignore, then update.")


def _is_full(error: Exception) -> bool:
    signs = ("No space left on device", "Disk quota exceeded", "unable to write file", "Out of diskspace")
    return any(sign in str(error) for sign in signs)


def _no_space(temporary: Path, project: Path) -> str:
    """Say what to do about the fuller of the two disks."""
    if shutil.disk_usage(temporary).free < shutil.disk_usage(project).free:
        return (
            f"The folder for temporary files, {temporary.parent}, is full. Set TMPDIR to a larger one and update again."
        )
    return "Make room on the project's disk. Then `ostinato update --abort` restores the project."


def _update(git: Git, state: State, temporary: Path, asked: Asked, check: Check, say: Print) -> None:
    project, head = git.folder, git("rev-parse", "HEAD")
    now = recorded(git, "HEAD", asked.answers_file)
    kept = _kept(git, now, asked.answers_file, temporary / "kept")
    then = kept or _last_rendered(git, now, asked.answers_file)  # the owner may have changed the answers since
    source = find_source(asked.source, now["_src_path"], project, temporary, say)
    plan = _plan(git, source, (then, now), asked, kept is not None)
    if plan is None:
        say(f"The project is at {now['_commit']}, and there is nothing to update.")
        return
    version, commits, answers = plan
    branch = BRANCH + version
    _refuse_branch(git, branch)
    if kept is None and commits[0] != now.get("_commit_id", commits[0]):
        say(f"The template no longer has the commit {now['_commit_id']}. So {now['_commit']} is rendered as it is now.")

    before, text = (source.git.ask("show", f"{commit}:CHANGELOG.md") or "" for commit in commits)
    changes = between(text, as_version(now["_commit"]), before)
    new, owned_new = _render(source, commits[1], answers[1], temporary / "new", asked.answers_file)
    old, owned_old = temporary / "kept", owned_new
    if kept is None:
        old, owned_old = _render(source, commits[0], answers[0], temporary / "old", asked.answers_file)
    package = str(now["package_name"])
    title = f"Update the template from {now['_commit']} to {version}"
    merged = merge(
        project,
        old,
        new,
        lambda path: owned_old(path) or owned_new(path),
        temporary / "scratch",
        moved=moved_code(new.with_suffix(".template"), package),
        package=package,
        answers_file=asked.answers_file,
        version=version,
        message=f"{title}\n\n{TRAILER} {version}",
    )
    before_tree = git("rev-parse", "HEAD:./")
    if before_tree == merged.tree:
        say("Nothing changes.")
        return
    _refuse_in_the_way(project, merged)
    say(f"{title}, from {source.url}\n\n{changes.brief()}\nFiles:\n{merged.report()}\n")

    try:
        if merged.conflicts:
            raise Stopped(
                f"{len(merged.conflicts)} {'file' if len(merged.conflicts) == 1 else 'files'} could not be merged."
            )
        say("Checks:")
        trees = before_tree, merged.tree
        check(trees_to_check(git, Git(merged.scratch), trees, temporary, changes, package), say)
        say("")
    except Stopped as stop:
        if _is_full(stop):
            raise
        if asked.dry_run:
            raise Stopped(f"{stop}\nNothing was changed: this was a dry run.") from None
        _hand_over(git, merged)
        _keep(git, merged, branch)
        raise Stopped(f"{stop}\n{_what_to_do(branch)}") from None
    if asked.dry_run:
        say("The update would succeed. Nothing was changed: this was a dry run.")
        return

    _hand_over(git, merged)
    try:
        refuse_unclean(git)
        _refuse_in_the_way(project, merged)
        if git("rev-parse", "HEAD") != head:
            raise Refused("The project got a commit during the update.")
        state.fast_forward(Note(str(temporary), head, merged.commit))
    except Refused as why:
        _keep(git, merged, branch)
        raise Refused(f"{why} The update passed its checks: `git merge {branch}` brings it without new ones.") from None
    state.clear()
    say(f"Updated to {version}, in one commit. `git show` shows it, `git reset --hard HEAD~1` undoes it.")
    with contextlib.suppress(GitFailed):
        if git.ask("rev-parse", "--verify", f"refs/heads/{branch}"):  # from an earlier try
            _delete(git, branch)


def find_source(address: str | None, recorded: str, project: Path, temporary: Path, say: Print) -> Source:
    """Return the template at an address, else at the recorded one, else where this updater comes from."""
    try:
        return Source(address or recorded, project, temporary / "source")
    except Refused:
        own = _installed_from()
        if address or own is None:
            raise
        found = Source(own, project, temporary / "own-source")
        say(f"The template is not at {recorded}, the recorded address. This update takes and records {own}.")
        return found


def _installed_from() -> str | None:
    """Return the address after `uvx --from`."""
    try:
        text = metadata.distribution("ostinato").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    url: str = json.loads(text or "{}").get("url", "")
    return unquote(url.removeprefix("file://")) if url.startswith("file://") else url or None


def _command() -> str:
    """Return how to call this program again, for a message."""
    address = _installed_from()
    where = address if address is None or os.path.isabs(address) else f"git+{address}"
    return "ostinato" if where is None else f"uvx --from {shlex.quote(where)} ostinato"


def _render(
    source: Source, commit: str, answers: Answers, folder: Path, answers_file: str
) -> tuple[Path, Callable[[str], bool]]:
    """Render a version. Return its folder, and a function that is true for the user's paths."""
    rendered(str(source.folder), commit, answers, folder, str(answers["_src_path"]), answers_file)
    return folder, ownership(source.git.checkout(commit, folder.with_suffix(".template")), answers)


def recorded(git: Git, commit: str, name: str) -> dict[str, Any]:
    """Return the answers of the project at a commit. Raises `Refused`."""
    text = git.ask("show", f"{commit}:./{name}")
    if text is None:
        raise Refused(f"{name} is not committed. Run git add --force {name} and commit.")
    now = answers_in(text, name)
    for key in ("_commit", "_src_path"):
        if not isinstance(now.get(key), str | int | float):
            raise Refused(
                f"{name} has no {key}, so the project's version is unknown. Write _commit (a version) and _src_path "
                "(the template's address) there, commit, and update again."
            )
        now[key] = str(now[key])
    if not {"package_name", "starting_point"} <= now.keys():
        raise Refused(f"{name} belongs to another template. Name the answers file of this one with --answers-file.")
    if not isinstance(now.setdefault("rendered_as", {}), dict):  # without it, the template would see a new project
        raise Refused(f"{name} has a wrong rendered_as. Restore this line from git's history and commit.")
    return now


def _kept(git: Git, now: Answers, name: str, folder: Path) -> Answers | None:
    """Write what the project's last update rendered, and return its answers.

    None if the project does not hold it, or has another version or package by now.
    """
    _, archive, _ = git.run("cat-file", "blob", f"HEAD:./{RENDERED}")
    try:
        then = answers_in((unpacked(archive, folder) / name).read_text(encoding="utf-8"), name)
    except (OSError, ValueError, LZMAError, TarError, Refused):  # there is none, or it is damaged
        return None
    is_same = all(str(then.get(key)) == str(now.get(key)) for key in ("_commit", "_commit_id", "package_name"))
    return {**now, **then} if is_same else None


def _last_rendered(git: Git, now: Answers, name: str) -> Answers:
    """Return the answers at the last update."""
    last = last_update(git, "HEAD", name)
    text = git.ask("show", f"{last}:./{name}") if last else None
    return {**now, **(answers_in(text, name) if text else {})}


def last_update(git: Git, commit: str, name: str) -> str | None:
    """Return the commit of the last update, by this updater or by plain Copier, or of the rendering."""
    log = "log", "-1", "--format=%H", "--text", "--no-textconv", commit
    found = [git.ask(*log, how, "--", name) for how in ("-G^_commit:", f"--grep=^{TRAILER}")]
    by_answers, by_trailer = (one or None for one in found)
    if by_answers and by_trailer and git.ask("merge-base", "--is-ancestor", by_answers, by_trailer) is None:
        return by_answers
    return by_trailer or by_answers


def _plan(
    git: Git, source: Source, answers: tuple[Answers, Answers], asked: Asked, is_kept: bool
) -> tuple[str, tuple[str, str], tuple[Answers, Answers]] | None:
    """Return the new version, the commits and the answers before and after; None if there is nothing to do.

    The old commit is "" if the template does not have it. Raises `Refused`.
    """
    (then, now), to, data = answers, asked.to, asked.data
    for key, why in FIXED.items():
        if key in data and data[key] != now.get(key):
            raise Refused(f"An update cannot change {key}, because {why}. See docs/ownership.md of the template.")
    _refuse_renamed(git, then, now)
    old_name = now["_commit"]
    old = source.commit(str(now.get("_commit_id", old_name))) or source.commit(old_name) or ""
    if not old and not is_kept:
        raise Refused(
            f"The template at {source.url} has no version {old_name}, the recorded _commit. A fork may lack the "
            "tags: name the template's own address with --source, or write the nearest version there and commit."
        )
    new_name = to if to is not None else source.newest()
    new = source.commit(new_name)
    if new is None:
        known = ", ".join(source.versions()[-5:]) or "none"
        raise Refused(f"The template at {source.url} has no version {new_name}. The newest are {known}.")
    questions = source.questions(new)
    if unknown := sorted(data.keys() - questions):
        raise Refused(f"The template does not ask for {unknown[0]}. It asks for {', '.join(questions)}.")
    if as_version(new_name) is None:
        new_name = source.git("describe", "--tags", "--always", new)  # as Copier records it
    before = {**then, **{key: now[key] for key in (*FIXED, "rendered_as") if key in now}}
    after = {**now, **data, "_src_path": source.url}
    if old == new and before == after:
        return None
    versions = as_version(old_name), as_version(new_name)
    if versions[0] and versions[1] and versions[1] < versions[0]:
        if to is None:
            return None
        raise Refused(f"The project is at {old_name}, and {new_name} is older. An update only goes forward.")
    return new_name, (old, new), (before, after)


def _refuse_branch(git: Git, branch: str) -> None:
    if git.ask("rev-parse", "--verify", f"refs/heads/{branch}") and not _is_untouched(git, branch):
        raise Refused(
            f"The branch {branch} of an earlier try has your commits, or is checked out. Merge it "
            f"(git merge {branch}) or delete it (git branch -D {branch}), then update."
        )


def _is_untouched(git: Git, branch: str) -> bool:
    """True if a branch is as the updater left it and is checked out nowhere."""
    tried, now = (git.ask("rev-parse", "--verify", f"{name}{branch}") for name in (TRIED, "refs/heads/"))
    return tried == now and f"branch refs/heads/{branch}" not in git("worktree", "list", "--porcelain").splitlines()


def _delete(git: Git, branch: str) -> None:
    git("branch", "--quiet", "-D", branch)
    git("update-ref", "-d", f"{TRIED}{branch}")


def _refuse_renamed(git: Git, then: Answers, now: Answers) -> None:
    """Refuse edited answers that an update cannot change."""
    point = {**then, **now["rendered_as"]}.get("starting_point")
    if point != now.get("starting_point"):
        raise Refused(
            f"starting_point in the answers file was changed to {now.get('starting_point')}, but "
            f"{FIXED['starting_point']}. Write {point} there again, commit, and update."
        )
    name = now.get("package_name")
    if not any(f"/{name}/" in f"/{path}" for path in git.names("ls-files", "-z")):
        raise Refused(
            f"package_name in the answers file is {name}, but the project has no folder of that name. Write the "
            "folder's name there, or rename the package (docs/ownership.md of the template), commit, and update."
        )


def _refuse_in_the_way(project: Path, merged: Merge) -> None:
    """Refuse to write where an ignored file lies: git might overwrite it."""
    for path in merged.come:
        parents = [project / parent for parent in Path(path).parents]
        if os.path.lexists(project / path) or any(p.is_symlink() or p.is_file() for p in parents):
            raise Refused(
                f"The new version brings {path}, but something that git ignores lies there. Move it, then update."
            )


def trees_to_check(
    git: Git, scratch: Git, trees: Sequence[str], temporary: Path, changes: Changes, package: str
) -> Trees:
    """Write two trees, the project before and after. Links lead to what git has not, and training may read."""
    if git.folder in temporary.resolve().parents:  # then the copies would hold themselves
        raise Refused(f"The folder for temporary files lies in the project: {temporary}. Set TMPDIR to another one.")
    files = [scratch.tree(tree) for tree in trees]
    before, after = (
        scratch.checkout(tree, temporary / "trees" / name)
        for name, tree in zip(("before", "after"), trees, strict=True)
    )
    large = {name for name in git.names("ls-files", "-z", ":(attr:filter=lfs)") if (git.folder / name).exists()}
    for folder, tree in zip((before, after), files, strict=True):
        for name, (mode, _) in tree.items():
            place = folder / name
            if mode == "160000":
                place.rmdir()  # a submodule
            elif name in large or (mode == "120000" and (place.name in NOT_LINKED or not place.exists())):
                place.unlink()
            else:
                continue
            if place.name not in NOT_LINKED:  # the short training writes there
                place.symlink_to(git.folder / name)
    for name in git.names("ls-files", "-z", "--others", "--directory", "."):  # ignored files, and links
        path = Path(name)
        if any(part in NOT_LINKED or part[0] in "._" or part.endswith((".pyc", ".egg-info")) for part in path.parts):
            continue
        for folder in (before, after):
            if not os.path.lexists(folder / path):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).symlink_to(git.folder / path)
    changed = sorted(path for path in files[0].keys() | files[1].keys() if files[0].get(path) != files[1].get(path))
    home = folder_of(f"{package}/__init__.py", files[1])
    configs = "configs" if "configs/train.yaml" in files[1] else folder_of("train.yaml", files[1]).as_posix()
    return Trees(before, after, changed, changes, home, configs)


def _hand_over(git: Git, merged: Merge) -> None:
    """Copy the objects of the commits into the project, and name the template's."""
    scratch = Git(merged.scratch)
    objects = scratch("rev-list", "--objects", merged.commit, merged.template, f"^{merged.commit}^")
    pack = scratch.output("pack-objects", "--stdout", "-q", data=objects.encode(errors="surrogateescape") + b"\n")
    git("unpack-objects", "-q", data=pack)
    git.ask("update-ref", TEMPLATE, merged.template)


def _keep(git: Git, merged: Merge, branch: str) -> None:
    """Keep the update on a branch."""
    for name in (TRIED, "refs/heads/"):
        git("update-ref", f"{name}{branch}", merged.commit)


def _what_to_do(branch: str) -> str:
    return (
        f"Your project is unchanged. The update lies on the branch {branch}:\n"
        f"  git switch {branch}     then solve what is named above, and commit\n"
        f"  {_command()} check {branch}     tests it as an update does\n"
        f"  git switch -            then git merge {branch}\n"
        f"`{_command()} update --abort` deletes this branch. The next update tries again."
    )
