"""The three-way merge of an update: old version, new version and project, file by file.

`merge` reads only the project's HEAD commit and writes nothing to the project. The user's files take no part in it,
so they stay as they are. The result is a commit on top of HEAD, in a repository of its own.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import style
from .git import Entry, Git, GitFailed, Tree
from .layout import moved_folders, placed
from .render import ANSWERS, RENDERED, packed
from .text import carried, changes, halves, merge_text

SIMILAR = "--find-renames=60%"
"""How alike a file must stay that a user moves and changes, so that git recognises it."""
GONE = "you changed it, and the new version does not have it. Move your changes elsewhere."
KEPT = "you changed it, and the new version does not have it. Yours stays."
MARKED = "you and the template changed the same lines. Choose between the markers."
YOURS_STAYS = "you have your own, and the new version brings one. Yours stays."


@dataclass(frozen=True)
class File:
    """A file of the old version: its path there, in the project, in the new version, and in the result."""

    old: str
    mine: str
    new: str
    result: str


@dataclass
class Sides:
    """What takes part in a merge: the old version, the project and the new version, without the user's files."""

    git: Git
    base: Tree
    ours: Tree
    theirs: Tree
    arriving: Tree
    """The files of the new version that the old version does not have."""
    moved: Mapping[str, Sequence[str]]
    """Where the template moved code: old path → new paths."""

    def of(self, file: File) -> tuple[Entry, Entry | None, Entry | None]:
        return self.base[file.old], self.ours.get(file.mine), self.theirs.get(file.new)

    def texts(self, file: File) -> list[bytes | None]:
        """Return the three texts of a file, the project's second. None where there is no text."""
        found = [self.git.blob(entry[1]) if entry and entry[0].startswith("10") else None for entry in self.of(file)]
        return [None if text is None or b"\0" in text else text for text in found]


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
    answers_file: str
    conflicts: dict[str, str] = field(default_factory=dict)
    """A sentence for each path that stops the update."""
    notes: dict[str, str] = field(default_factory=dict)
    """A sentence for each path that the user should look at."""
    rows: list[tuple[str, str]] = field(default_factory=list)
    """What happened, and to which path."""
    come: list[str] = field(default_factory=list)
    """The paths that the project did not have."""

    def report(self) -> str:
        """Return a line for each file that changed, and for each conflict and note."""
        lines = [f"  {what:<10}{path}" for what, path in self.rows]
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

    rendered = [git.tree_of_folder(folder) for folder in (old, new)]
    base, theirs = ({path: entry for path, entry in tree.items() if not owned(path)} for tree in rendered)
    repository = git.tree(head)
    before = {path.removeprefix(prefix): entry for path, entry in repository.items() if path.startswith(prefix)}
    elsewhere = moved_folders(base.keys() | theirs.keys(), before.keys(), package)
    base, theirs = ({placed(path, elsewhere): entry for path, entry in tree.items()} for tree in (base, theirs))
    moved = {placed(path, elsewhere): [placed(place, elsewhere) for place in to] for path, to in moved.items()}
    as_rendered = {place: folder for folder, place in elsewhere.items()}
    ours = {path: entry for path, entry in before.items() if not owned(placed(path, as_rendered))}
    result = Merge(scratch, "", "", "", dict(before), answers_file)

    if theirs.get(answers_file) is None:
        raise GitFailed(f"the new version renders no {answers_file}")
    result.files[answers_file] = theirs.pop(answers_file)
    answers = base.pop(answers_file, None), ours.pop(answers_file, None), result.files[answers_file]
    texts = [git.blob(entry[1]) for entry in answers if entry]
    if len(texts) == 3 and (line := _lost(*texts, texts[2])) is not None:
        result.notes[answers_file] = f"Copier writes this file. Your change of the line {line!r} is dropped."

    files = list(_files(git, base, ours, theirs, moved))
    arriving = {path: theirs[path] for path in theirs.keys() - {file.new for file in files}}
    sides = Sides(git, base, ours, theirs, arriving, moved)
    _restyle(sides, files, here.folder, prefix, repository)
    others = before.keys() - base.keys()
    unmerged = [file for file in files if not _settle(sides, file, others, f"template-{version}", result)]
    for path, entry in sorted(arriving.items()):
        if path not in before and not _folders([path]) & others:
            _place(path, entry, others, result)
        elif before.get(path) != entry:
            result.notes[path] = YOURS_STAYS
    for file in unmerged:
        _carry(sides, file, result)
    result.files[RENDERED] = "100644", git.write_blob(packed(new))
    _tell(base, before, files, result)

    result.tree = git.write_tree(result.files)
    rest = {path: entry for path, entry in repository.items() if not path.startswith(prefix)}
    whole = git.write_tree(rest | {prefix + path: entry for path, entry in result.files.items()})
    name, email = _me(here)
    author = {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": email}
    commit = Git(scratch, **author, GIT_COMMITTER_NAME=name, GIT_COMMITTER_EMAIL=email)
    result.commit = commit("commit-tree", whole, "-p", head, "-m", message)
    result.template = commit("commit-tree", git.write_tree(rendered[1]), "-m", f"The template's files of {version}")
    return result


def borrowing(project: Git, scratch: Path) -> Git:
    """Create a bare repository that reads the project's objects and writes its own."""
    kind = project.ask("rev-parse", "--show-object-format") or "sha1"
    scratch.mkdir(parents=True)
    git = Git(scratch)
    git("init", "--quiet", "--bare", f"--object-format={kind}", ".")
    (scratch / "info").mkdir(exist_ok=True)
    (scratch / "info/attributes").write_text("* -filter\n")  # such as that of LFS, which would fetch
    git("config", "core.autocrlf", "false")
    paths = [project.folder / project("rev-parse", "--git-path", name) for name in ("objects", "shallow")]
    (scratch / "objects" / "info" / "alternates").write_text(f"{paths[0].resolve()}\n", encoding="utf-8")
    if paths[1].is_file():
        (scratch / "shallow").write_bytes(paths[1].read_bytes())
    for key in (project.ask("config", "--name-only", "--get-regexp", r"^remote\..*\.promisor$") or "").split():
        remote = key.removeprefix("remote.").removesuffix(".promisor")  # of a partial clone: it has the missing objects
        git("config", key, "true")
        git("config", f"remote.{remote}.url", project("remote", "get-url", remote))
    return git


def _me(project: Git) -> tuple[str, str]:
    """Return the user's name and address, as git knows them."""
    name, _, rest = (project.ask("var", "GIT_COMMITTER_IDENT") or "ostinato <ostinato@localhost>").partition(" <")
    return name, rest.partition(">")[0]


def _files(git: Git, base: Tree, ours: Tree, theirs: Tree, moved: Mapping[str, Sequence[str]]) -> Iterator[File]:
    """Find each file of the old version: where the user moved it, and where the template says that it moved.

    Where nobody says so, likeness decides.
    """
    by_user = _renames(git, base, ours, SIMILAR)
    by_template: dict[str, str] = {}
    for path, places in moved.items():
        for first in places[:1]:
            if path in base and path not in theirs and first in theirs.keys() - {*base, *by_template.values()}:
                by_template[path] = first
    gone = {path: entry for path, entry in base.items() if path not in by_template}
    come = {path: entry for path, entry in theirs.items() if path not in by_template.values()}
    by_template |= _renames(git, gone, come, "--find-renames=50%")
    for path in base:
        new = by_template.get(path, path)
        yield File(path, by_user.get(path, path), new, by_user.get(path, new))


def _renames(git: Git, one: Tree, other: Tree, similar: str) -> dict[str, str]:
    trees = [git.write_tree(files) for files in (one, other)]
    words = git.names("diff-tree", "-r", "-z", "--no-ext-diff", "--diff-filter=R", "--name-status", similar, *trees)
    return dict(zip(words[1::3], words[2::3], strict=True))


def _restyle(sides: Sides, files: Iterable[File], project: Path, prefix: str, repository: Tree) -> None:
    """Format the template's versions of edited files, and arriving files, as the owner formats files."""
    git, base, theirs = sides.git, sides.base, sides.theirs
    found = {path: entry for path, entry in repository.items() if Path(path).name in style.SETTINGS}
    is_changed = found != {f"{prefix}{name}": base[name] for name in style.SETTINGS if name in base}
    settings = {path: git.blob(oid) for path, (_, oid) in found.items()} if is_changed else {}
    known: dict[str, File] = {}
    old: dict[str, bytes] = {}
    mine: dict[str, bytes] = {}
    new: dict[str, bytes] = {}
    for file in files:
        before, now, _ = sides.of(file)
        if now is not None and (now != before or (settings and file.result.endswith(".py"))):
            path, texts = f"{prefix}{file.mine}", sides.texts(file)
            if texts[0] is not None and texts[1] is not None:
                known[path], old[path], mine[path] = file, texts[0], texts[1]
                if texts[2] is not None:
                    new[path] = texts[2]
    if settings:
        arriving = {path: oid for path, (_, oid) in sides.arriving.items() if path not in sides.ours}
        new |= {f"{prefix}{path}": git.blob(oid) for path, oid in arriving.items()}
    old, new = style.as_the_owner_writes(project, settings, mine, old, new, git.folder / "style")
    for path, file in known.items():
        _write(git, base, file.old, old[path])
        if path in new:
            _write(git, theirs, file.new, new.pop(path))
    for path, text in new.items():
        _write(git, sides.arriving, path.removeprefix(prefix), text)


def _write(git: Git, tree: Tree, path: str, text: bytes) -> None:
    """Replace the text of a file."""
    if text != git.blob(tree[path][1]):
        tree[path] = tree[path][0], git.write_blob(text)


def _settle(sides: Sides, file: File, others: Collection[str], name: str, result: Merge) -> bool:
    """Put a file of the old version into the result. Return False if changes of the user are left over."""
    base, mine, new = sides.of(file)
    if mine is None:
        if new not in (base, None):
            what = "it" if file.old == file.new else file.old
            result.notes[file.new] = (
                f"you deleted or moved {what}, and the template changed it. It stays as you left it."
            )
        for place in sides.moved.get(file.old, ())[:1] if new is None else ():
            what = f"you deleted or moved {file.old}, and the template moved its code here. Look at it."
            result.notes.setdefault(place, what)
    elif new is None:
        if file.mine != file.old:
            places = [place for place in sides.moved.get(file.old, ()) if place in sides.theirs]
            its = f" Its code is now in {', '.join(places)}." if places else ""
            result.notes[file.mine] = (
                f"you moved {file.old} here, and the new version does not have it. Yours stays.{its}"
            )
        elif mine != base and file.old.startswith("configs/"):  # nothing needs a choice that is not chosen
            result.notes[file.mine] = KEPT
        elif mine != base:
            result.conflicts[file.mine] = GONE
            return False
        else:
            del result.files[file.mine]
    elif mine == base and file.result != file.mine and file.result in others:
        del result.files[file.mine]
        result.notes[file.result] = YOURS_STAYS
    else:
        mode = new[0] if mine[0] == base[0] else mine[0]
        if mine[1] == base[1]:
            entry = mode, new[1]
        elif new[1] in (base[1], mine[1]):
            entry = mode, mine[1]
        else:
            entry = mode, _merged(sides, file, name, result)
        if file.old not in (file.mine, file.new) and file.mine != file.new:
            result.notes[file.mine] = (
                f"you moved {file.old} here, and the new version moved it to {file.new}. Yours stays here."
            )
        if file.result == file.mine:
            result.files[file.mine] = entry
        elif _place(file.result, entry, others, result):
            del result.files[file.mine]
        return result.conflicts.get(file.result) != MARKED
    return True


def _merged(sides: Sides, file: File, name: str, result: Merge) -> str:
    """Merge the texts of a file and return the new blob."""
    old, yours, others = sides.texts(file)
    if old is None or yours is None or others is None:
        result.conflicts[file.result] = "you and the template changed it, and it is no text. Choose one of them."
        return sides.ours[file.mine][1]
    merged = merge_text(yours, old, others, name)
    if merged.left:
        result.conflicts[file.result] = MARKED
    elif (line := _lost(old, yours, others, merged.text)) is not None:
        result.conflicts[file.result] = f"your change of the line {line!r} would be lost. Make it again by hand."
    elif (line := _lost(old, others, yours, merged.text)) is not None:
        result.notes[file.result] = f"the template's change of the line {line!r} did not arrive."
    return sides.git.write_blob(merged.text)


def _lost(base: bytes, one: bytes, other: bytes, merged: bytes) -> str | None:
    """Return a line that one side changed and `merged` does not show, whoever merged it. None if there is none."""
    before, mine, theirs, now = (Counter(_parts(text)) for text in (base, one, other, merged))
    lost = (mine - (before - theirs) - now) + (now - (mine + (theirs - before)))
    return next(iter(lost)).decode(errors="replace").strip() if lost else None


def _parts(text: bytes) -> Iterator[bytes]:
    """Yield code and comment of each line: they may be merged apart."""
    for line in text.splitlines(keepends=True):
        yield from (part.strip() for part in halves(line)[:2] if part.strip())


def _place(path: str, entry: Entry, others: Collection[str], result: Merge) -> bool:
    """Put a file into the result, unless another file of the user lies there, above it or below it."""
    if path in others or _folders([path]) & set(others) or path in _folders(others):
        result.conflicts[path] = "the new version brings it, and something of yours lies there. Move yours."
        return False
    result.files[path] = entry
    return True


def _folders(paths: Iterable[str]) -> set[str]:
    """Return every folder above the paths."""
    return {str(parent) for path in paths for parent in Path(path).parents} - {"."}


def _carry(sides: Sides, file: File, result: Merge) -> None:
    """Make the user's changes that are left over where the code is now, or name all places of the code."""
    git, is_gone = sides.git, file.new not in sides.theirs
    path = file.mine if is_gone else file.result
    has_moved = file.old not in sides.theirs
    places = [
        p
        for p in sides.moved.get(file.old, ())
        if p != path and p in sides.theirs and (has_moved or p not in sides.base)
    ]
    found = {p: git.blob(result.files[p][1]) for p in places if p in result.files and p not in result.conflicts}
    now = None
    old, yours, others = sides.texts(file)
    if old is not None and yours is not None:
        new = b"\n".join([others or b"", *found.values()])
        if others is not None:
            merged = merge_text(yours, old, others, "")
            now = carried(merged.left, old, {path: merged.without, **found}, path)
        else:
            now = carried(changes(old, yours), old, found, path)
        whole = b"\n".join((now or {}).values())
        if _lost(old, yours, new, whole) is not None or _lost(old, new, yours, whole) is not None:
            now = None
    if now is None:
        if places:
            result.conflicts[path] += f" Code of {file.old} is now in {', '.join(places)}."
        return
    del result.conflicts[path]
    if is_gone:
        del result.files[path]
    for place, text in now.items():
        if text != found.get(place):
            _write(git, result.files, place, text)
            result.notes.setdefault(place, f"your change of {file.old} is here, where its code is now. Look at it.")


def _tell(base: Tree, before: Tree, files: Iterable[File], result: Merge) -> None:
    """Fill the rows of the report."""
    after = result.files
    gone, come = before.keys() - after.keys(), after.keys() - before.keys() - {RENDERED}
    moved = {file.result: file.mine for file in files if file.mine in gone and file.result in come}
    quiet = {RENDERED, result.answers_file, *result.conflicts}
    changed = [p for p in sorted(before.keys() & after.keys() - quiet) if before[p] != after[p]]
    replaced = [path for path in changed if before[path] == base.get(path)]
    result.come = sorted(come)
    result.rows = [("arrived", path) for path in result.come if path not in moved]
    result.rows += [("moved", f"{one} → {other}") for other, one in moved.items()]
    result.rows += [("merged", path) for path in changed if path not in replaced]
    result.rows += [("removed", path) for path in sorted(gone - set(moved.values()))]
    if len(replaced) > 8:
        replaced = [f"{len(replaced)} files that you had not edited"]
    result.rows += [("replaced", path) for path in replaced]
