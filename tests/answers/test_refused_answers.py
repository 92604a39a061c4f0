"""A refused answer is named in one sentence, and nothing is rendered."""

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
