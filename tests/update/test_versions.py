"""Which version an update goes to, and what the changelog says of the versions between."""

import pytest
from helpers import snippets
from helpers.small_template import LINES

from ostinato import changelog
from ostinato.render import as_version


def test_to_a_pre_release_to_head_and_on(project, ostinato):
    assert ostinato("update", "--to", "0.3.0rc1").code == 0
    assert (project / "digits/engine/loop.py").read_text() == LINES
    assert "nothing to update" in ostinato("update")
    assert "nothing to update" in ostinato("update", "--to", "HEAD")


@pytest.mark.parametrize(
    ("old", "sections", "numbers", "defaults", "removed"),
    [
        ("0.1.0", ["Unreleased", "0.3.0", "0.2.0"], True, {"keep_last", "lr"}, {"a.b", "optimizer=sgd"}),
        ("0.2.0", ["Unreleased", "0.3.0"], True, set(), {"a.b", "optimizer=sgd"}),
        ("0.3.0-2-gabcdef0", ["Unreleased"], False, set(), {"a.b", "optimizer=sgd"}),
        ("1234567", ["Unreleased", "0.3.0", "0.2.0", "0.1.0"], True, {"keep_last", "lr"}, {"a.b", "optimizer=sgd"}),
    ],
)
def test_the_changelog_after_a_version(old, sections, numbers, defaults, removed):
    found = changelog.between(snippets.text("changelog.md"), as_version(old))
    assert [line.split()[1] for line in found.text.splitlines() if line.startswith("## ")] == sections
    assert (found.numbers, found.checkpoints) == (numbers, numbers)
    assert (found.defaults, found.removed) == (defaults, removed)


def test_without_tags_the_old_changelog_says_what_is_old():
    text = snippets.text("changelog.md")
    before = text.replace("## 0.3.0 (2030-03-01)", "").replace("- **Numbers change**: a better sum.\n", "")
    found = changelog.between(text, as_version("1234567"), before)
    assert found.text == "## 0.3.0 (2030-03-01)\n\n- **Numbers change**: a better sum.\n"
    assert (found.numbers, found.checkpoints, found.removed) == (True, False, frozenset())


def test_a_long_changelog_shows_what_owners_have_to_know():
    others = "".join(f"- Thing {n} is faster,\n  by far.\n- **Fixed** Thing {n}.\n" for n in range(40))
    first = "## 0.3.0 (2030-03-01)\n\n- **In short**: much.\n\n"
    text = f"{first}### Data\n\n- **Changed** All\n  of it.\n{others}- **Removed** `a`: b.\n"
    found = changelog.between(text, as_version("0.2.0"))
    assert found.brief() == (
        f"{first}- **Changed** All\n  of it.\n- **Removed** `a`: b.\n"
        "\n… and 80 other changes: read CHANGELOG.md of the template.\n"
    )
    assert found.removed == {"a"}
    short = changelog.between(text.replace(others, "- More.\n"), as_version("0.2.0"))
    assert short.brief() == short.text
