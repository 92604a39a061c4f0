"""The three-way merge of an update: old version, new version and project, as git trees.

`merge` reads only the project's HEAD commit and writes nothing to the project. The user's files take no part in it,
so they stay as they are. The result is a commit on top of HEAD, in a repository of its own.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .adjacent import merge_adjacent
from .git import Git, GitFailed, Tree
from .layout import moved_folders, placed
from .render import ANSWERS

SIMILAR = "--find-renames=60%"
"""How alike a file must stay that a user moves and changes, so that git recognises it."""
COMMENT = re.compile(rb"^(.*?\S)([ \t]+#.*)$", re.MULTILINE)
"""A line that ends in a comment: its code and the comment."""
NOBODY = {f"GIT_{who}_{what}": "ostinato" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@dataclass
class Merge:
    """The result of `merge`. Paths are relative to the project's root."""

    scratch: Path
    """The bare repository that holds the commits."""
    commit: str
    """On top of the project's HEAD. Files in conflict hold conflict markers."""
    tree: str
    """The project's folder in this commit; a project may lie in a subfolder of its repository."""
    template: str
    """A commit with the new version as rendered."""
    files: Tree
    package: str
    """Where the package lies."""
    answers_file: str
    conflicts: dict[str, str] = field(default_factory=dict)
    """A sentence for each path that stops the update."""
    notes: dict[str, str] = field(default_factory=dict)
    """A sentence for each path that the user should look at."""
    arrived: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    moved: list[tuple[str, str]] = field(default_factory=list)
    """Old and new path."""

    def read(self, path: str) -> bytes | None:
        """Return the content of a merged file; None if there is none."""
        entry = self.files.get(path)
        return Git(self.scratch).blob(entry[1]) if entry else None

    def report(self) -> str:
        """Return a line for each file that changed, and for each conflict and note."""
        rows = [("arrived", path) for path in self.arrived]
        rows += [("moved", f"{one} → {other}") for one, other in self.moved]
        rows += [("merged", path) for path in self.merged]
        rows += [("removed", path) for path in self.removed]
        if len(self.replaced) > 8:
            rows.append(("replaced", f"{len(self.replaced)} files that you had not edited"))
        else:
            rows += [("replaced", path) for path in self.replaced]
        lines = [f"  {what:<10}{path}" for what, path in rows]
        for title, found in (("Conflicts", self.conflicts), ("For you to look at", self.notes)):
            if found:
                lines += ["", f"{title}:", *(f"  {path}: {sentence}" for path, sentence in sorted(found.items()))]
        return "\n".join(lines)


def merge(
    project: Path,
    old: Path,
    new: Path,
    owned: Callable[[str], bool],
    scratch: Path,
    *,
    moved: Mapping[str, Sequence[str]],
    package: str = "",
    answers_file: str = ANSWERS,
    version: str = "new",
    message: str = "Update the template",
) -> Merge:
    """Merge what changed from `old` to `new` into the project's HEAD.

    `moved` says where the template moved code: old path → new paths, the new name of the file first. The
    `package` and a few other folders are followed if the owner moved them as a whole.
    """
    here = Git(project)
    head = here("rev-parse", "HEAD")
    prefix = here("rev-parse", "--show-prefix")
    git = borrowing(here, scratch)
    index = scratch / "merge-index"

    base, theirs = (
        {path: entry for path, entry in git.tree_of_folder(folder, index).items() if not owned(path)}
        for folder in (old, new)
    )
    project_files = git.tree(f"{head}:{prefix}")
    elsewhere = moved_folders(base.keys() | theirs.keys(), project_files.keys(), package)
    base, theirs = ({placed(path, elsewhere): entry for path, entry in tree.items()} for tree in (base, theirs))
    moved = {placed(old, elsewhere): [placed(path, elsewhere) for path in new] for old, new in moved.items()}
    as_rendered = {place: folder for folder, place in elsewhere.items()}
    ours = {path: entry for path, entry in project_files.items() if not owned(placed(path, as_rendered))}
    result = Merge(scratch, "", "", "", {}, elsewhere.get(package, package), answers_file)

    if theirs.get(answers_file) is None:
        raise GitFailed(f"the new version renders no {answers_file}")
    rendered = dict(theirs)
    answers = theirs.pop(answers_file)
    _note_edited_answers(git, base.pop(answers_file, None), ours.pop(answers_file, None), answers, result)

    # Files that the template never had take no part. git could take them for renamed files.
    moved_by_user = _renames(git, base, ours, index, SIMILAR)
    renamed = _renamed_by_template(git, base, theirs, moved, index)
    for path in moved_by_user.keys() & renamed.keys():
        mine, new = moved_by_user[path], renamed[path]
        if mine != new and mine not in theirs:
            theirs[mine] = theirs.pop(new)
            renamed[path] = mine
            result.notes[mine] = f"you moved {path} here, and the new version moved it to {new}. Yours stays here."
    taking_part = base.keys() | theirs.keys() | set(moved_by_user.values()) | _folders(theirs)
    ours = {p: entry for p, entry in ours.items() if p in taking_part or _folders([p]) & theirs.keys()}
    for path in sorted(ours.keys() & theirs.keys() - base.keys() - set(moved_by_user.values())):
        if ours[path] != theirs[path]:
            result.notes[path] = "you have your own, and the new version brings one. Yours stays."
            del ours[path], theirs[path]

    origin = {other: one for one, other in moved_by_user.items()}
    crlf = _without_crlf(git, base, ours, origin)
    _reword_comments(git, base, ours, theirs, moved_by_user, renamed)
    # git is shown old files under their new names. So it merges edits however much of a file changed.
    new_name = {path: new for path, new in renamed.items() if new in theirs and not (path in ours and new in ours)}
    old_trees = ({new_name.get(path, path): entry for path, entry in tree.items()} for tree in (base, ours))
    files, stages, told = _merge_trees(git, *old_trees, theirs, index, version)
    old_name = {new: path for path, new in renamed.items()}
    _settle(files, stages, told, old_name, result)
    for path in crlf:
        _with_crlf(git, files, {path, renamed.get(origin.get(path, path), path)})
    _audit(git, base, ours, theirs, files, moved_by_user, renamed, result)
    origin |= old_name
    for path, sentence in result.conflicts.items():
        old_path = origin.get(path, path)
        is_gone = old_path not in theirs
        places = [p for p in moved.get(old_path, ()) if p != path and p in theirs and (is_gone or p not in base)]
        if places:
            result.conflicts[path] = f"{sentence} Code of {old_path} is now in {', '.join(places)}."

    untouched = {path: entry for path, entry in project_files.items() if path not in ours and path != answers_file}
    result.files = {**untouched, **files, answers_file: answers}
    _sort(base, project_files, result, renamed)
    result.tree = git.write_tree(result.files, index)
    whole = result.tree
    if prefix:
        rest = {p: e for p, e in git.tree(head).items() if not p.startswith(prefix)}
        whole = git.write_tree(rest | {prefix + p: e for p, e in result.files.items()}, index)
    author = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _me(here).items()}
    result.commit = Git(scratch, **author)("commit-tree", whole, "-p", head, "-m", message)
    result.template = Git(scratch, **author)(
        "commit-tree", git.write_tree(rendered, index), "-m", f"The template's files of {version}"
    )
    return result


def borrowing(project: Git, scratch: Path) -> Git:
    """Create a bare repository that reads the project's objects and writes its own."""
    kind = project.ask("rev-parse", "--show-object-format") or "sha1"
    scratch.mkdir(parents=True)
    git = Git(scratch)
    git("init", "--quiet", "--bare", f"--object-format={kind}", ".")
    paths = [project.folder / project("rev-parse", "--git-path", name) for name in ("objects", "shallow")]
    (scratch / "objects" / "info" / "alternates").write_text(f"{paths[0].resolve()}\n", encoding="utf-8")
    if paths[1].is_file():
        (scratch / "shallow").write_bytes(paths[1].read_bytes())
    for key in (project.ask("config", "--name-only", "--get-regexp", r"^remote\..*\.promisor$") or "").split():
        remote = key.removeprefix("remote.").removesuffix(".promisor")  # of a partial clone: it has the missing objects
        git("config", key, "true")
        git("config", f"remote.{remote}.url", project("remote", "get-url", remote))
    return git


def _me(project: Git) -> dict[str, str]:
    ident = project.ask("var", "GIT_COMMITTER_IDENT")
    if ident is None:
        return {"NAME": "ostinato", "EMAIL": "ostinato@localhost"}
    name, _, rest = ident.partition(" <")
    return {"NAME": name, "EMAIL": rest.partition(">")[0]}


def _folders(paths: Iterable[str]) -> set[str]:
    """Return every folder above the paths."""
    return {str(parent) for path in paths for parent in Path(path).parents} - {"."}


def _renames(git: Git, one: Tree, other: Tree, index: Path, similar: str) -> dict[str, str]:
    trees = [git.write_tree(files, index) for files in (one, other)]
    words = git.names("diff-tree", "-r", "-z", "--no-ext-diff", "--diff-filter=R", "--name-status", similar, *trees)
    return dict(zip(words[1::3], words[2::3], strict=True))


def _renamed_by_template(
    git: Git, base: Tree, theirs: Tree, moved: Mapping[str, Sequence[str]], index: Path
) -> dict[str, str]:
    """Return the new name of each renamed file: as the template says, else by likeness."""
    renamed: dict[str, str] = {}
    for path, places in moved.items():
        for first in places[:1]:
            if path in base and path not in theirs and first in theirs and first not in {*base, *renamed.values()}:
                renamed[path] = first
    rest = (
        {path: entry for path, entry in tree.items() if path not in known}
        for tree, known in ((base, renamed.keys()), (theirs, set(renamed.values())))
    )
    return renamed | _renames(git, *rest, index, "--find-renames=50%")


def _merge_trees(
    git: Git, base: Tree, ours: Tree, theirs: Tree, index: Path, version: str
) -> tuple[Tree, dict[str, dict[int, str]], dict[str, str]]:
    """Return the merged files and, by path in conflict, the blobs (1 base, 2 ours, 3 theirs) and git's message."""
    writer = Git(git.folder, **NOBODY)
    root = writer("commit-tree", git.write_tree(base, index), "-m", "base")
    names = "yours", f"template-{version}"
    for name, files in zip(names, (ours, theirs), strict=True):
        commit = writer("commit-tree", git.write_tree(files, index), "-p", root, "-m", name)
        git("update-ref", f"refs/heads/{name}", commit)
    code, out, said = git.run("merge-tree", "--write-tree", "-z", "--messages", *names)
    if code not in (0, 1):
        raise GitFailed(f"git merge-tree: {said}")
    tree, *words = out.decode(errors="surrogateescape").split("\0")
    stages: dict[str, dict[int, str]] = {}
    while words and words[0]:
        about, path = words.pop(0).split("\t", 1)
        _, oid, stage = about.split(" ")
        stages.setdefault(path, {})[int(stage)] = oid
    del words[:1]
    told: dict[str, str] = {}
    while words and words[0]:
        count = int(words.pop(0))
        paths, (kind, text), words = words[:count], words[count : count + 2], words[count + 2 :]
        if kind.startswith("CONFLICT"):
            told |= dict.fromkeys(set(paths) & stages.keys() or paths[:1], " ".join(text.split()))
    files = git.tree(tree)
    for path, have in list(stages.items()):
        if have.keys() == {1, 2, 3} and "(content)" in told.get(path, ""):
            text = merge_adjacent(git, *(git.blob(have[stage]) for stage in (2, 1, 3)))
            if text is not None:
                files[path] = files[path][0], git.write_blob(text)
                del stages[path], told[path]
    return files, stages, told


def _settle(
    files: Tree, stages: dict[str, dict[int, str]], told: dict[str, str], old_name: dict[str, str], result: Merge
) -> None:
    """Say what the user must do about each path that git could not merge."""
    for path, blobs in stages.items():
        have = set(blobs)
        if have == {1, 3}:
            files.pop(path, None)
            what = old_name.get(path, "it")
            result.notes[path] = f"you deleted or moved {what}, and the template changed it. It stays as you left it."
        elif have == {1, 2}:
            result.conflicts[path] = (
                "you changed it, and the new version does not have it. Move your changes elsewhere."
            )
        elif have == {1, 2, 3}:
            result.conflicts[path] = "you and the template changed the same lines. Choose between the markers."
        else:
            result.conflicts[path] = f"{told.get(path, 'git cannot merge it').rstrip('.')}."
    for path in told.keys() - stages.keys():
        result.conflicts.setdefault(path, f"{told[path].rstrip('.')}.")


def _note_edited_answers(git: Git, base: object, ours: object, new: object, result: Merge) -> None:
    """Note the user's own lines in the answers file: Copier writes it anew."""
    if ours in (base, new) or base is None or ours is None:
        return
    before, mine, after = (set(git.blob(entry[1]).splitlines()) for entry in (base, ours, new))  # type: ignore[index]
    lost = [line.decode(errors="replace") for line in mine - before - after]
    if lost:
        result.notes[result.answers_file] = f"Copier writes this file. Your own lines are dropped: {'; '.join(lost)}"


def _is_crlf(content: bytes) -> bool:
    return b"\r\n" in content and content.count(b"\r\n") == content.count(b"\n")


def _without_crlf(git: Git, base: Tree, ours: Tree, origin: dict[str, str]) -> list[str]:
    """Write LF in files that the user converted to CRLF, or every line would conflict. Return their paths."""
    found = []
    for path, (mode, oid) in list(ours.items()):
        before = base.get(origin.get(path, path))
        if before is None or before[1] == oid or mode.startswith("12"):
            continue
        content = git.blob(oid)
        if _is_crlf(content) and not _is_crlf(git.blob(before[1])):
            ours[path] = mode, git.write_blob(content.replace(b"\r\n", b"\n"))
            found.append(path)
    return found


def _reword_comments(
    git: Git, base: Tree, ours: Tree, theirs: Tree, moved_by_user: dict[str, str], renamed: dict[str, str]
) -> None:
    """If the template changed only the comment at a line's end, and the user kept it, change it in `base` and `ours`.

    So a value that the user set in this line, or beside it, does not conflict with the new comment.
    """
    for path, entry in base.items():
        mine, new = moved_by_user.get(path, path), renamed.get(path, path)
        if mine in ours and new in theirs and entry[1] not in (ours[mine][1], theirs[new][1]):
            texts = [git.blob(tree[place][1]) for tree, place in ((base, path), (ours, mine), (theirs, new))]
            comments = _reworded(*texts)
            for tree, place, text in ((base, path, texts[0]), (ours, mine, texts[1])):
                tree[place] = tree[place][0], git.write_blob(_with_comments(text, comments))


def _reworded(base: bytes, ours: bytes, theirs: bytes) -> dict[bytes, bytes]:
    """Return the template's new comment for each old one that the user kept."""
    old, kept, new = ([found.groups() for found in COMMENT.finditer(text)] for text in (base, ours, theirs))
    still, now = {comment for _, comment in kept}, dict(new)
    pairs = {(comment, now.get(code, comment)) for code, comment in old if comment in still}
    counts = Counter(comment for comment, _ in pairs)
    return {comment: other for comment, other in pairs if counts[comment] == 1}


def _with_comments(text: bytes, comments: Mapping[bytes, bytes]) -> bytes:
    return COMMENT.sub(lambda found: found[1] + comments.get(found[2], found[2]), text)


def _with_crlf(git: Git, files: Tree, paths: set[str]) -> None:
    for path in paths & files.keys():
        mode, oid = files[path]
        content = git.blob(oid).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        files[path] = mode, git.write_blob(content)


def _audit(
    git: Git,
    base: Tree,
    ours: Tree,
    theirs: Tree,
    files: Tree,
    moved_by_user: dict[str, str],
    renamed: dict[str, str],
    result: Merge,
) -> None:
    """Count lines, so that no change of the user is lost, however git merged."""

    def lines(tree: Tree, *paths: str) -> Counter[bytes]:
        found: Counter[bytes] = Counter()
        for path in {path for path in paths if path in tree}:
            found.update(line.rstrip() for line in git.blob(tree[path][1]).splitlines())
        return found

    for path in base:
        mine, new = moved_by_user.get(path, path), renamed.get(path, path)
        told = {path, mine, new} & (result.conflicts.keys() | result.notes.keys())
        if told or mine not in ours or ours[mine] == base[path]:
            continue
        before, after, yours = lines(base, path), lines(theirs, new), lines(ours, mine)
        now = lines(files, path, mine, new)
        added = yours - (before - after) - now
        deleted = now - (yours + (after - before))
        if added or deleted:
            line = next(iter(added or deleted)).decode(errors="replace").strip()
            result.conflicts[mine] = f"your change of the line {line!r} would be lost. Make it again by hand."


def _sort(base: Tree, before: Tree, result: Merge, renamed: dict[str, str]) -> None:
    """Sort the changed paths into the lists of the result."""
    after = result.files
    gone, come = before.keys() - after.keys(), after.keys() - before.keys()
    result.moved = [(one, other) for one, other in renamed.items() if one in gone and other in come]
    result.arrived = sorted(come - {other for _, other in result.moved})
    result.removed = sorted(gone - {one for one, _ in result.moved})
    for path in sorted(before.keys() & after.keys()):
        if before[path] != after[path] and path not in result.conflicts and path != result.answers_file:
            (result.replaced if before[path] == base.get(path) else result.merged).append(path)
