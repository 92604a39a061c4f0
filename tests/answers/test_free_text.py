"""Any text is a good answer; only control characters are refused."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers.answers import NASTY, files, one_sentence


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_nasty_text_gives_valid_files_and_comes_back_unchanged(render: Callable[..., Path], tmp_path: Path, text: str):
    answers = {"project_name": text, "description": text, "author": text}
    project = render(tmp_path / "new", package_name="nasty", **answers)
    parsed = {}
    for name, content in files(project).items():
        if name.endswith(".toml"):
            parsed[name] = tomllib.loads(content.decode())
        elif name.endswith((".yml", ".yaml")):
            parsed[name] = yaml.safe_load(content)
    stored = parsed[".copier-answers.yml"]
    assert {name: stored[name] for name in answers} == answers
    metadata = parsed["pyproject.toml"]["project"]
    line = " ".join(text.split())
    assert metadata["description"] == line
    assert metadata["authors"] == [{"name": line}]


def test_no_author_gives_no_authors(render: Callable[..., Path], tmp_path: Path):
    project = render(tmp_path / "new", author=" \n")
    metadata = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert "authors" not in metadata


@pytest.mark.parametrize("question", ["project_name", "description", "author"])
@pytest.mark.parametrize("bad", ["\0", "\a", "\r", "\x1b", "\x7f", "\x85", "\udcff"], ids=ascii)
def test_control_characters_are_refused_with_their_code_point(refused, question: str, bad: str):
    sentence = refused(**{question: f"ab{bad}c\nd\te"})
    assert one_sentence(sentence)
    assert f"{question} contains the control character U+{ord(bad):04X}" in sentence


def test_no_other_character_is_refused(macros):
    refused = {c for c in map(chr, range(0x10000)) if macros.text_problem("author", c)}
    control = {c for c in map(chr, range(0xA0)) if not c.isprintable() and c != "\xa0"}
    assert refused == control - {"\n", "\t"} | set(map(chr, range(0xD800, 0xE000)))


@pytest.mark.parametrize("name", ["", " ", "\n\t"], ids=ascii)
def test_an_empty_project_name_is_refused(refused, name: str):
    sentence = refused(project_name=name, package_name="fine")
    assert one_sentence(sentence)
    assert "project_name is empty" in sentence
