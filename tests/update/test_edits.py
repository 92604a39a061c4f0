"""A seeded simulator: owners edit a project, and update it to a newer version.

Half of the cases update from a release to the working tree. The other half update from the working tree to a version
after it, which edits, renames, deletes and adds files of every kind. Plain Copier updates a tenth of the cases. The
figures in docs/updates.md: `EDITS_SEED=0 pytest tests/update/test_edits.py -n0 -s --edits 60`, with seeds 0 to 4. Each
seed has other answers. With `EDITS_OF=patch_the_engine` every owner makes this kind of edit, and no other.
"""

import contextlib
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import copier
import jinja2
import pytest
from helpers.formatting import formatted
from helpers.owner import EDITS, MARK, Owner
from helpers.releases import NEWEST, commit, files, git, versions
from helpers.updating import Versions, contents, plain_update

from ostinato import update
from ostinato.errors import Stopped
from ostinato.merge import Merge
from ostinato.render import moved_code

SEED = int(os.environ.get("EDITS_SEED", "0"))
KINDS = [edit for edit in EDITS if edit.__name__ == os.environ.get("EDITS_OF", edit.__name__)]
POINTS = ("image_classification", "regression", "dense_prediction", "segmentation", "language_model")
ANSWERS = {
    "package_name": "digits",
    "project_name": "Digits",
    "starting_point": POINTS[SEED % 5],
    "ci": ("github", "gitlab", "none")[SEED % 3],
}
FURTHER = "9999.1.0"
ANSWERS_FILE = ".copier-answers.yml"


def evolve(template: Path) -> None:
    """Change the template as a busy year does: every fifth file changes, some are renamed, some are deleted."""
    draw = random.Random(SEED)
    root = template / "template"
    engine = root / "{{ package_name }}/engine"
    for path in sorted(engine.rglob("*.py"))[::5] + sorted(root.rglob("configs/*/*.yaml"))[::5]:
        lines = path.read_text(encoding="utf-8").splitlines()
        for _ in range(3):
            place = draw.randrange(len(lines))
            indent = re.match(r"\s*", lines[place])[0]
            lines.insert(place, f"{indent}# new in {FURTHER}: {draw.random()}")
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    renamed = {"log/media.py": "log/observing.py", "log/grids.py": "log/montage.py", "paths.py": "places.py"}
    table = template / "includes/moved.yml"
    text = table.read_text(encoding="utf-8")
    for old, new in renamed.items():
        (engine / old).rename(engine / new)
        text = text.replace(f"engine/{old}]", f"engine/{new}]")
    table.write_text(f"{text}engine/paths.py: [engine/places.py]\n", encoding="utf-8")
    (engine / "tools/curves.py").unlink()
    (root / "configs/scheduler/exponential.yaml").unlink()
    (root / "configs/scheduler/sqrt.yaml").write_text("_target_: .engine.schedule.Sqrt\n")
    (engine / "counting.py").write_text('"""New."""\n')
    project = root / "pyproject.toml.jinja"
    text = project.read_text(encoding="utf-8")
    project.write_text(text.replace('    "numpy>=1.26",\n', '    "numpy>=2.0",\n'), encoding="utf-8")


@pytest.fixture(scope="module")
def further(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with one more version."""
    folder = tmp_path_factory.mktemp("further") / "ostinato"
    shutil.copytree(repository, folder)
    evolve(folder)
    commit(folder, FURTHER)
    return folder


@pytest.fixture(scope="module")
def addresses(further: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the template also lies, for owners of each version. Tags move where a project records its commit."""
    folder = tmp_path_factory.mktemp("addresses")
    (folder / "moved").symlink_to(further)
    shutil.copytree(further, folder / "tags")
    git(folder / "tags", "tag", "--force", NEWEST, f"{versions()[0]}^{{commit}}")
    return {**dict.fromkeys(versions(), folder / "moved"), NEWEST: folder / "tags"}


@pytest.fixture(scope="module")
def rendered(further: Path, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    return Versions(further, tmp_path_factory.mktemp("versions"))


@pytest.fixture(scope="module")
def bases(rendered: Versions, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A project of each version, under git."""
    projects = {version: tmp_path_factory.mktemp("base") / "digits" for version in [*versions(), NEWEST]}
    for version, project in projects.items():
        shutil.copytree(rendered.get(version, ANSWERS)[0], project)
        git(project, "init", "--quiet")
        git(project, "config", "core.autocrlf", "false")
        commit(project)
    return projects


@dataclass
class Case:
    owner: Owner
    version: str
    old: dict[str, bytes]
    new: dict[str, bytes]
    """The two versions as rendered."""
    moved: dict[str, list[str]]
    """Where the template says that code moved."""

    def lost(self, after: dict[str, bytes], reported: Callable[[str], bool]) -> list[str]:
        """The owner's edits that are missing from the updated files and from the report."""
        owner = self.owner
        found = set(re.findall(MARK, b"\n".join(after.values()).decode(errors="replace")))
        lost = [f"{path}: {mark}" for mark, path in owner.marks.items() if mark not in found and not reported(path)]
        renamed = self.renamed()
        for path, line in owner.cut:
            for now in {path, renamed.get(path, path)} & after.keys():
                text = after[now].decode(errors="replace").replace("\r\n", "\n")
                again = line in text.split("\n")
                if again and "<<<<<<<" not in text and not reported(path) and not reported(now):
                    lost.append(f"{path}: the line {line!r} is back")
        for path in owner.deleted | owner.moved.keys():
            told = any(map(reported, (path, owner.moved.get(path, path))))
            for now in {path, renamed.get(path, path)} & after.keys():
                if now not in owner.marks.values() and not told and not reported(now):
                    lost.append(f"{now} is back")
        for path, target in owner.moved.items():
            if target not in after:
                lost.append(f"{target} is gone")
            changed = path in self.new and self.new[path] != self.old.get(path)
            untouched = target not in owner.marks.values() and target not in {where for where, _ in owner.cut}
            arrives = after.get(target, b"").replace(b"\r\n", b"\n") == self.new.get(path, b"")
            told = reported(target) or reported(path)
            if changed and not owner.owned(path) and untouched and not arrives and not told:
                lost.append(f"the template's change of {path} is not in {target}")
        return lost

    def missing(self, after: dict[str, bytes], reported: Callable[[str], bool]) -> list[str]:
        """The template's new lines that are missing from the updated files and from the report."""
        owner, found, old = self.owner, parts(after.values()), parts(self.old.values())
        began = {new: path for path, new in self.renamed().items()}
        missing = []
        for path, text in self.new.items():
            before = began.get(path, path)
            places = {path, before, owner.moved.get(path, path), owner.moved.get(before, before)}
            if owner.owned(path) or path == ANSWERS_FILE or any(map(reported, places)):
                continue
            lines = parts([text]) - old - found
            missing += [f"the template's line {line!r} of {path} is missing" for line in lines]
        return missing

    def edits_the_templates(self) -> bool:
        owner = self.owner
        paths = {*owner.marks.values(), *(path for path, _ in owner.cut), *owner.deleted, *owner.moved}
        return any(path in self.old and not owner.owned(path) for path in paths)

    def renamed(self) -> dict[str, str]:
        """Files that the template renamed: as it says, and by their first line, which says what they are."""
        told = {path: new for path, places in self.moved.items() for new in places[:1] if path not in self.new}
        told = {path: new for path, new in told.items() if new not in self.old}
        gone = {p: t for p, t in self.old.items() if p not in self.new and t.strip()}
        come = {t.split(b"\n")[0]: p for p, t in self.new.items() if p not in self.old}
        alike = {path: come[text.split(b"\n")[0]] for path, text in gone.items() if text.split(b"\n")[0] in come}
        return alike | told


def parts(texts: Iterable[bytes]) -> set[bytes]:
    """Code and comments of all lines, which may be merged apart."""
    lines = (line for text in texts for line in text.splitlines())
    return {part.strip() for line in lines for part in re.split(rb"\s#", line)}


@dataclass
class Figures:
    cases: int = 0
    template_edited: int = 0
    with_conflict: int = 0
    to_further: int = 0
    with_conflict_to_further: int = 0
    """A release may rewrite much at once, but an update like this one must merge almost always."""
    with_loss: int = 0
    in_yours: int = 0
    lost: list[str] = field(default_factory=list)
    conflicts: Counter[str] = field(default_factory=Counter)

    def row(self, name: str) -> str:
        return (
            f"| {name} | {self.cases} | {self.template_edited} | {self.with_loss} | {len(self.lost)} "
            f"| {self.with_conflict} | {self.in_yours} |"
        )


@pytest.fixture
def draw_case(
    bases: dict[str, Path], rendered: Versions, addresses, further: Path, tmp_path: Path
) -> Callable[[int], Case]:
    def draw_case(number: int) -> Case:
        """Case `number`: the project is edited and committed."""
        release, version = (versions()[number // 2 % len(versions())], NEWEST) if number % 2 == 0 else (NEWEST, FURTHER)
        (old, in_old), (new, in_new) = (rendered.get(v, ANSWERS) for v in (release, version))
        before, after = files(old), files(new)
        project = shutil.copytree(bases[release], tmp_path / str(number))
        later = sorted(after.keys() - before.keys())
        draw, address = random.Random(f"{SEED} {number}"), str(addresses[release])
        owner = Owner(project, draw, number, lambda p: in_old(p) or in_new(p), later, address)
        owner.work(KINDS)
        commit(project)
        if git(project, "status", "--porcelain"):  # line endings, once .gitattributes is gone
            git(project, "add", "--renormalize", ".")
            commit(project)
        return Case(owner, version, before, after, moved_code(rendered.templates[version], "digits"))

    return draw_case


@pytest.fixture
def checked_update(once, monkeypatch) -> Callable[[Path, str], Merge]:
    """What `ostinato update` does and merges, without the checks."""
    merges: list[Merge] = []

    def merge(*given, **settings):
        merges.append(whole_merge(*given, **settings))
        return merges[-1]

    whole_merge = update.merge
    monkeypatch.setattr(update, "merge", merge)
    monkeypatch.setattr(update, "rendered", once)

    def checked_update(project: Path, version: str) -> Merge:
        before = git(project, "rev-parse", "HEAD")
        with contextlib.suppress(Stopped):
            update.update(project, update.Asked(version), lambda trees, say: None, lambda text: None)
        merged = merges.pop()
        assert git(project, "rev-parse", "HEAD").strip() == (before.strip() if merged.conflicts else merged.commit)
        assert git(project, "status", "--porcelain") == ""
        return merged

    return checked_update


@pytest.mark.timeout(7200)
def test_no_edit_is_lost_by_a_checked_update(draw_case, checked_update, pytestconfig):
    figures = Figures()
    for number in range(pytestconfig.getoption("edits")):
        case = draw_case(number)
        owner, project = case.owner, case.owner.project
        before = git(project, "ls-tree", "-r", "HEAD").replace("\tsrc/digits/", "\tdigits/").splitlines()
        if owner.is_sparse:
            git(project, "sparse-checkout", "set", "configs")
        merged = checked_update(project, case.version)
        after = {path.removeprefix("src/"): text for path, text in contents(project, merged.tree).items()}
        case.new = contents(project, merged.template)
        if "format_everything" in owner.did:
            case.old, case.new = (formatted(texts, project) for texts in (case.old, case.new))

        told = {path.removeprefix("src/") for path in merged.conflicts.keys() | merged.notes.keys()}
        lost = case.lost(after, told.__contains__) + case.missing(after, told.__contains__)
        mine = [row for row in before if owner.owned(row.partition("\t")[2])]
        now = set(git(project, "ls-tree", "-r", merged.tree).replace("\tsrc/digits/", "\tdigits/").splitlines())
        lost += [f"{row.partition(chr(9))[2]}, which is the owner's, is another" for row in mine if row not in now]
        for path, why in merged.conflicts.items():
            if "between the markers" in why and b"<<<<<<<" not in after.get(path.removeprefix("src/"), b""):
                lost.append(f"no markers in {path}")
        figures.cases += 1
        figures.template_edited += case.edits_the_templates()
        figures.with_loss += bool(lost)
        figures.lost += [f"case {number} {owner.did}: {what}" for what in lost]
        figures.in_yours += sum(owner.owned(path.removeprefix("src/")) for path in merged.conflicts)
        figures.with_conflict += bool(merged.conflicts)
        figures.to_further += case.version == FURTHER
        figures.with_conflict_to_further += case.version == FURTHER and bool(merged.conflicts)
        figures.conflicts.update(f"{number} {owner.did} {path}: {why}" for path, why in merged.conflicts.items())
        print(figures.row("checked"), *lost, *merged.conflicts, sep="\n  ", flush=True)
        shutil.rmtree(project)
    print("\n".join(figures.conflicts))
    assert figures.lost == []
    assert figures.in_yours == 0
    assert figures.with_conflict <= 0.15 * figures.cases
    assert figures.with_conflict_to_further <= max(1, 0.05 * figures.to_further)


@pytest.mark.timeout(7200)
def test_plain_copier_leaves_alone_what_is_the_owners(draw_case, pytestconfig, monkeypatch):
    """Print how many edits of the template's files it loses, for the table in docs/updates.md."""
    # What takes Copier most of its time, and changes nothing here: a git process per file, and compiling anew.
    monkeypatch.setattr(copier._main.Worker, "_sync_git_index_executable_bit", lambda *args: None)
    compiled, compile_ = {}, jinja2.Environment.compile

    def compile_once(self, source, *options, **named):
        key = (source, options, tuple(named.items()))
        if key not in compiled:
            compiled[key] = compile_(self, source, *options, **named)
        return compiled[key]

    monkeypatch.setattr(jinja2.Environment, "compile", compile_once)
    figures = Figures()
    for number in range(pytestconfig.getoption("edits") // 10):
        case = draw_case(number)
        owner, project = case.owner, case.owner.project
        mine = {path: content for path, content in files(project).items() if owner.owned(path)}
        figures.cases += 1
        figures.template_edited += case.edits_the_templates()
        plain_update(project, case.version)
        after = files(project)
        lost = case.lost(after, lambda path: False)
        figures.with_loss += bool(lost)
        figures.lost += lost
        conflicts = [path for path, text in after.items() if b"<<<<<<< before updating" in text]
        figures.with_conflict += bool(conflicts)
        figures.in_yours += sum(map(owner.owned, conflicts))
        assert {path: after.get(path) for path in mine} == mine, f"case {number} {owner.did}"
        shutil.rmtree(project)
    print(f"\n{figures.row('plain')}")
    assert figures.in_yours == 0
