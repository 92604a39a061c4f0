"""Each sentence that the product says has its paragraph in docs/troubleshooting/, or is a plain typing mistake."""

import re
from pathlib import Path

import pytest
from helpers.messages import messages, usual
from helpers.template import ROOT

PAGES = sorted(path for path in (ROOT / "docs/troubleshooting").glob("*.md") if path.stem != "index")
TYPING_MISTAKES = ROOT / "tests/snippets/typing_mistakes.txt"
"""Starts of messages that say all about a wrong value or name, and sentences that are no mistake."""


def headings(page: Path) -> list[str]:
    return [usual(line[4:]) for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("### ")]


def explained() -> list[str]:
    return [heading for page in PAGES for heading in headings(page)]


def plain() -> list[str]:
    return [usual(line) for line in TYPING_MISTAKES.read_text(encoding="utf-8").splitlines() if line]


def begins(message: str, start: str) -> bool:
    """Whether a message begins in this way. A `…` at the end of the start stands for anything."""
    return message.startswith(start.rstrip("….")) if start.rstrip("….") else message == start


def test_every_message_is_explained():
    starts = [*explained(), *plain()]
    missing = [text for text in messages() if not any(begins(text, start) for start in starts)]
    assert missing == [], "Add a paragraph to docs/troubleshooting/, or a line to tests/snippets/typing_mistakes.txt"


def test_no_paragraph_is_about_a_message_that_is_gone():
    said = list(messages())
    assert [start for start in [*explained(), *plain()] if not any(begins(text, start) for text in said)] == []


def test_no_message_is_in_both_lists():
    assert sorted(set(explained()) & set(plain())) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_heading_has_a_paragraph_of_its_own(page):
    text = page.read_text(encoding="utf-8")
    assert len(headings(page)) == len(set(headings(page)))
    for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        heading, _, paragraph = part.partition("\n")
        assert len(paragraph.split()) >= 5, heading
