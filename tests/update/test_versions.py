"""Which version an update goes to, and what the changelog says of the versions between."""

import pytest
from helpers import snippets
from helpers.small_template import LINES

from ostinato import changelog
from ostinato.render import as_version


def test_to_a_pre_release_to_head_and_on(project, ostinato):
    assert ostinato("update", "--to", "0.3.0rc1").code == 0
    assert (project / "digits/engine/loop.py").read_text() == LINES
    assert "newest version" in ostinato("update")
    assert "newest version" in ostinato("update", "--to", "HEAD")


@pytest.mark.parametrize(
    ("old", "new", "sections", "numbers", "defaults", "removed"),
    [
        ("0.1.0", "0.2.0", ["0.2.0"], False, {"keep_last", "lr"}, set()),
        ("0.1.0", "0.3.0", ["0.3.0", "0.2.0"], True, {"keep_last", "lr"}, set()),
        ("0.2.0", "0.3.0", ["0.3.0"], True, set(), set()),
        ("0.3.0", "0.3.0-2-gabcdef0", ["Unreleased"], False, set(), {"a.b", "optimizer=sgd"}),
        ("0.3.0", "0.3.0", [], False, set(), set()),
    ],
)
def test_the_changelog_between_two_versions(old, new, sections, numbers, defaults, removed):
    found = changelog.between(snippets.text("changelog.md"), as_version(old), as_version(new))
    assert [line.split()[1] for line in found.text.splitlines() if line.startswith("## ")] == sections
    assert (found.numbers, found.checkpoints) == (numbers, numbers)
    assert (found.defaults, found.removed) == (defaults, removed)
