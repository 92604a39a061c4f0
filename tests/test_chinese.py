"""Each Chinese page says what its English page says: the same code, tables, links and numbers in each section."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHINESE = {
    "README.md": "README.zh-CN.md",
    "docs/tutorial.md": "docs/zh/tutorial.md",
    "docs/mistakes/README.md": "docs/zh/mistakes.md",
    "docs/logging.md": "docs/zh/logging.md",
}
PAIRS = {ROOT / english: ROOT / chinese for english, chinese in CHINESE.items()}
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
SWITCH = re.compile(r"^\[(?:English|中文)\]\(.*?\)", re.MULTILINE)
"""The link to the other language, at the start of a line."""
LINK = re.compile(r"\]\((<[^>]+>|[^)\s]+)\)")


def sections(text: str) -> list[tuple[str, str]]:
    """The heading and the text of each section, without mistaking a comment in code for a heading."""
    fences = [match.span() for match in FENCE.finditer(text)]
    headings = [
        match
        for match in re.finditer(r"^#+ .*$", text, re.MULTILINE)
        if not any(start < match.start() < end for start, end in fences)
    ]
    ends = [match.start() for match in headings[1:]] + [len(text)]
    return [(match[0], text[match.end() : end]) for match, end in zip(headings, ends, strict=True)]


def anchors(page: Path) -> list[set[str]]:
    """The anchors of each heading of a page: GitHub's, and one that is written above the heading."""
    found, above = [], ""
    for heading, text in sections(page.read_text(encoding="utf-8")):
        title = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading.lstrip("#").strip())
        found.append({re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-"), *re.findall(r'<a id="(.*?)">', above)})
        above = text.rstrip().rpartition("\n")[2]
    return found


def target(page: Path, link: str, pairs: dict[Path, Path]) -> str:
    """Where a link leads: the page, the Chinese one if there is one, and the number of the heading."""
    if "://" in link:
        return link
    path, _, anchor = link.strip("<>").partition("#")
    there = (page.parent / path).resolve() if path else page
    assert there.exists(), f"{page}: {link} leads nowhere"
    if anchor:
        numbers = [str(number) for number, names in enumerate(anchors(there)) if anchor in names]
        assert numbers, f"{page}: {link} names no heading"
        anchor = numbers[0]
    return f"{pairs.get(there, there) if page in pairs else there}#{anchor}"


def rows(text: str) -> Iterator[str]:
    """The shape of each table: the number of cells of each row."""
    for table in re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE):
        lines = re.sub(r"`[^`]*`|\\\|", "", table).splitlines()
        yield "×".join(str(line.count("|") - 1) for line in lines)


def contents(page: Path, heading: str, text: str, pairs: dict[Path, Path]) -> dict[str, Counter[str]]:
    """What must be equal in both languages, by its kind."""
    prose = FENCE.sub("", text)
    return {
        "heading level": Counter([heading.split()[0]]),
        "code block": Counter(FENCE.findall(text)),
        "code": Counter(set(re.findall(r"`[^`]+`", " ".join(prose.split())))),
        "link": Counter(target(page, link, pairs) for link in LINK.findall(SWITCH.sub("", prose))),
        "table": Counter(rows(prose)),
        "number": Counter(re.findall(r"\d+(?:[.,]\d+)*", re.sub(r"`[^`]*`", "", LINK.sub("]", heading + prose)))),
    }


def differences(english: Path, chinese: Path, pairs: dict[Path, Path] = PAIRS) -> list[str]:
    """One line for each thing that only one of the pages has."""
    pages = [(page, sections(page.read_text(encoding="utf-8"))) for page in (english, chinese)]
    if len(pages[0][1]) != len(pages[1][1]):
        return [f"{english} has {len(pages[0][1])} headings, {chinese} has {len(pages[1][1])}"]
    found = []
    for number, (one, other) in enumerate(zip(pages[0][1], pages[1][1], strict=True), 1):
        wanted, is_there = contents(english, *one, pairs), contents(chinese, *other, pairs)
        for kind, counts in wanted.items():
            for where, only in (("English", counts - is_there[kind]), ("Chinese", is_there[kind] - counts)):
                found += [f"section {number} ({one[0]}): {kind} only in {where}: {thing}" for thing in only]
    return found


def test_all_chinese_pages_are_compared():
    pages = [*ROOT.glob("*.zh-CN.md"), *ROOT.glob("docs/zh/**/*.md")]
    assert sorted(pages) == sorted(PAIRS.values())


@pytest.mark.parametrize("page", CHINESE)
def test_the_chinese_page_agrees_with_the_english(page):
    found = differences(ROOT / page, ROOT / CHINESE[page])
    assert not found, f"{CHINESE[page]} fell behind {page}:\n" + "\n".join(found)


@pytest.mark.parametrize("page", CHINESE)
def test_both_pages_link_to_each_other(page):
    english, chinese = ROOT / page, ROOT / CHINESE[page]
    for here, there, name in ((english, chinese, "中文"), (chinese, english, "English")):
        (link,) = re.findall(rf"^\[{name}\]\((.*?)\)", here.read_text(encoding="utf-8"), re.MULTILINE)
        assert (here.parent / link).resolve() == there


CHANGES = {
    "code block": ("step=1", "step=2"),
    "code": ("`lr`", "`rate`"),
    "link": ("(other.md)", "(third.md)"),
    "table": ("| a | b |\n", ""),
    "number": ("10 %", "11 %"),
    "heading level": ("## Two", "### Two"),
}
TEXT = "# One\n\nRead [it](other.md), `lr` is 10 %.\n\n## Two\n\n| a | b |\n|---|---|\n\n```bash\nstep=1\n```\n"


@pytest.mark.parametrize("kind", CHANGES)
def test_a_page_that_fell_behind_is_named(tmp_path, kind):
    for name in ("page.md", "chinese.md", "other.md", "third.md"):
        (tmp_path / name).write_text(TEXT, encoding="utf-8")
    english, chinese = tmp_path / "page.md", tmp_path / "chinese.md"
    assert differences(english, chinese) == []
    english.write_text(TEXT.replace(*CHANGES[kind]), encoding="utf-8")
    found = differences(english, chinese)
    assert found
    assert all(f": {kind} only in " in line for line in found), found
