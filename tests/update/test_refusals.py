"""What `ostinato` refuses in one sentence, before it changes anything."""

import os
import shutil
from pathlib import Path

import pytest
from helpers.releases import git
from helpers.updating import edit, write

from ostinato.render import ANSWERS


def drop(project: Path, key: str) -> None:
    lines = (project / ANSWERS).read_text().splitlines(keepends=True)
    edit(project, {ANSWERS: "".join(line for line in lines if not line.startswith(key))})


def answer(project: Path, key: str, value: str) -> None:
    drop(project, f"{key}:")
    edit(project, {ANSWERS: (project / ANSWERS).read_text() + f"{key}: {value}\n"})


def all_files(folder: Path) -> dict[Path, bytes]:
    """Files of git count too, except the lock, which is empty, and the index, which git refreshes."""
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name not in ("index", "ostinato-update.lock")]
    return {path: path.read_bytes() for path in paths}


REFUSALS = {
    "no project": (lambda p: (p / ANSWERS).unlink(), [], f"There is no {ANSWERS}"),
    "no git": (lambda p: shutil.rmtree(p / ".git"), [], "not a git repository"),
    "no commit": (lambda p: [shutil.rmtree(p / ".git"), git(p, "init", "--quiet")], [], "no commit yet"),
    "changed": (lambda p: write(p, {"digits/task.py": "x"}), [], "digits/task.py has changes that are not committed"),
    "untracked in the package": (
        lambda p: write(p, {"digits/x/a.py": ""}),
        [],
        "digits/x/ is untracked. Commit it, delete it, or write /digits/x into .gitignore, then update.",
    ),
    "untracked": (lambda p: write(p, {"a b/ü.txt": "x"}), [], "a b/ is untracked"),
    "merging": (lambda p: write(p, {".git/MERGE_HEAD": git(p, "rev-parse", "HEAD")}), [], "A git merge is under way"),
    "rebasing": (lambda p: (p / ".git/rebase-merge").mkdir(), [], "A git rebase is under way"),
    "answers not committed": (
        lambda p: [
            git(p, "rm", "-q", "--cached", ANSWERS),
            write(p, {".git/info/exclude": ANSWERS}),
            git(p, "commit", "-qm", "x"),
        ],
        [],
        "is not committed",
    ),
    "no version": (lambda p: drop(p, "_commit"), [], "has no _commit"),
    "no source": (lambda p: drop(p, "_src_path"), [], "has no _src_path"),
    "not YAML": (lambda p: edit(p, {ANSWERS: "a: [\n"}), [], "Correct it and commit."),
    "wrong rendered_as": (lambda p: answer(p, "rendered_as", "5"), [], f"{ANSWERS} has a wrong rendered_as"),
    "an answer without a value": (
        lambda p: answer(p, "project_name", "null"),
        [],
        "Give another answer with --data project_name=…",
    ),
    "unknown recorded version": (
        lambda p: [drop(p, "_commit_id"), answer(p, "_commit", "0.1.0-3-gabcdef1")],
        [],
        "has no version 0.1.0-3-gabcdef1",
    ),
    "unknown version": (
        lambda p: None,
        ["--to", "7.0.0"],
        "has no version 7.0.0. The newest are 0.1.0, 0.2.0, 0.3.0rc1",
    ),
    "an option as a version": (lambda p: None, ["--to=--help"], "has no version --help"),
    "unreachable": (lambda p: answer(p, "_src_path", "/nowhere/at/all"), [], "cannot be reached"),
    "relative": (lambda p: answer(p, "_src_path", "../ostinato"), [], "template's present address with --source"),
    "offline": (
        lambda p: answer(p, "_src_path", "https://no.such.host.invalid/x"),
        [],
        "Check the network, or name the template's present address with --source",
    ),
    "not the template": (lambda p: answer(p, "_src_path", str(p)), [], "is not the template"),
    "package renamed": (lambda p: None, ["--data", "package_name=x"], "cannot change package_name"),
    "package renamed in the answers": (
        lambda p: answer(p, "package_name", "x"),
        [],
        "package_name in the answers file is x",
    ),
    "point changed": (lambda p: None, ["--data", "starting_point=regression"], "cannot change starting_point"),
    "point changed in the answers": (
        lambda p: answer(p, "starting_point", "regression"),
        [],
        "Write image_classification there again",
    ),
    "no such answer": (lambda p: None, ["--data", "cii=none"], "does not ask for cii"),
    "not an answer": (lambda p: None, ["--data", "ci"], "'ci' is not of the form KEY=VALUE"),
    "refused answer": (lambda p: None, ["--data", "ci=nothing"], "cannot be rendered with the answers"),
    "removed choice": (lambda p: answer(p, "ci", "gone"), [], "Give another answer with --data ci=…"),
    "another template's answers": (
        lambda p: edit(p, {".copier-answers.x.yml": "_commit: 1.0.0\n_src_path: gh:a/b\nname: x\n"}),
        ["--answers-file", ".copier-answers.x.yml"],
        ".copier-answers.x.yml belongs to another template. Name the answers file of this one with --answers-file",
    ),
    "answers file elsewhere": (
        lambda p: None,
        ["--answers-file", f"configs/../../{ANSWERS}"],
        f"--answers-file ../{ANSWERS} does not begin at the project's root. Name it from there.",
    ),
    "no such answers file": (lambda p: None, ["--answers-file", "x.yml"], "name its answers file with --answers-file"),
    "runs that are not ignored": (
        lambda p: [edit(p, {".gitignore": ""}), write(p, {"runs/default/x.pt": ""})],
        [],
        "runs/ is untracked. Commit it, delete it, or write /runs into .gitignore, then update.",
    ),
    "not a config value": (lambda p: None, ["lr"], "'lr' is not of the form KEY=VALUE"),
    "ignored file in the way": (
        lambda p: write(p, {".git/info/exclude": "added.py\n", "digits/engine/folder/added.py": "precious"}),
        [],
        "The new version brings digits/engine/folder/added.py, but something that git ignores lies there",
    ),
    "ignored link where a folder comes": (
        lambda p: [write(p, {".git/info/exclude": "folder\n"}), (p / "digits/engine/folder").symlink_to(p / "configs")],
        [],
        "The new version brings digits/engine/folder/added.py, but something that git ignores lies there",
    ),
    "ignored file where a folder comes": (
        lambda p: write(p, {".git/info/exclude": "folder\n", "digits/engine/folder": "precious"}),
        [],
        "The new version brings digits/engine/folder/added.py, but something that git ignores lies there",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(project, ostinato, tmp_path, case):
    prepare, arguments, sentence = REFUSALS[case]
    prepare(project)
    before = all_files(project)
    result = ostinato("update", *arguments)
    assert result.code == 2
    (line,) = result.strip().splitlines()
    assert sentence in line
    assert all_files(project) == before
    assert not list((tmp_path / "temporary").iterdir())


def test_no_downgrade(project, ostinato):
    assert ostinato("update").code == 0
    result = ostinato("update", "--to", "0.1.0")
    assert (result.code, result.strip()) == (
        2,
        "The project is at 0.2.0, and 0.1.0 is older. An update only goes forward.",
    )


def test_old_git_is_refused(project, ostinato, tmp_path, monkeypatch):
    write(tmp_path, {"bin/git": "#!/bin/sh\necho git version 2.37.9\n"})
    (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    result = ostinato("update")
    assert (result.code, result.strip()) == (2, "git 2.37.9 is too old for an update. Install git 2.38 or newer.")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    result = ostinato("check")
    assert (result.code, result.strip()) == (2, "git is not installed. An update needs git 2.38 or newer.")
