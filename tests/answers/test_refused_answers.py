"""A refused answer is named in one sentence, and nothing is rendered."""

import os
from pathlib import Path

import pytest
from helpers.answers import files


@pytest.mark.parametrize("question", ["starting_point", "ci"])
@pytest.mark.parametrize("answer", ["foo", "", "GitHub", "github\n", "none "], ids=ascii)
def test_unknown_choices_are_refused(refused, question: str, answer: str):
    sentence = refused(**{question: answer})
    assert f"Invalid choice for '{question}': {answer!r} is not in ['" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("package_name=class", '"class" cannot be the package name because it is a Python keyword'),
        ("package_name=abc1\n", '"abc1\\n" cannot be the package name. Begin with a letter'),
        ("ci=foo", "Invalid choice for 'ci': 'foo' is not in ['github', 'gitlab', 'none']"),
        ("author=a\x1bb", "The author contains the control character U+001B. Remove it"),
    ],
    ids=ascii,
)
def test_the_command_ends_with_the_sentence_and_leaves_nothing(cli, data: str, sentence: str):
    process, folder = cli("deep/new", "--data", data)
    assert process.returncode != 0
    assert sentence in process.stderr.splitlines()[-1]
    assert list(folder.iterdir()) == []


def test_a_refusal_leaves_an_existing_folder_as_it_was(cli, tmp_path: Path):
    (tmp_path / "cwd/old").mkdir(parents=True)
    (tmp_path / "cwd/old/notes.txt").write_text("mine")
    process, folder = cli("old", "--data", "package_name=class")
    assert process.returncode != 0
    assert files(folder) == {"old/notes.txt": b"mine"}


@pytest.mark.parametrize(
    ("address", "folder", "is_refused"),
    [
        ("../ostinato", "project", True),
        (".", "/home/me/project", True),
        ("../ostinato", ".", False),  # an update runs in this folder, too
        ("/home/me/ostinato", "project", False),
        ("~/ostinato", "project", False),
        ("gh:me/ostinato", "project", False),
        ("git@host.org:me/ostinato.git", "project", False),
        ("https://host.org/me/ostinato", "project", False),
    ],
)
def test_an_address_that_an_update_cannot_find(macros, address, folder, is_refused):
    problem = macros.source_problem(address, folder)
    assert problem.startswith(f"The template's path {address} is relative") == is_refused
    assert bool(problem) == is_refused


def test_a_relative_path_of_the_template_is_refused(template, render, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is relative, so an update of the project could not find it"):
        render(tmp_path / "project", os.path.relpath(template))
    assert not (tmp_path / "project").exists()
