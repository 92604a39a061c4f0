"""Changes that lie beside each other merge; changes of one line, or beside a deletion, do not."""

import pytest

from ostinato.adjacent import SMALL, merge_adjacent
from ostinato.git import Git

MANY = " ".join(f"old{n}" for n in range(SMALL + 1))


@pytest.mark.parametrize(
    ("ours", "base", "theirs", "merged"),
    [
        ("a b MINE c", "a b c", "a B c", "a B MINE c"),
        ("a MINE b c", "a b c", "a B c", "a MINE B c"),
        ("A b c", "a b c", "a B c", "A B c"),
        ("a b C", "a b c", "a B c", "a B C"),
        ("a c", "a b c", "a b C", "a C"),
        ("a B c", "a b c", "a b NEW c", "a B NEW c"),
        ("a B c", "a b c", "a NEW b c", "a NEW B c"),
        ("A b MINE c", "a b c", "a B c", None),
        ("A b c d e f g MINE h", "a b c d e f g h", "a B c d e f G h", "A B c d e f G MINE h"),
        ("a MINE c", "a b c", "a B c", None),
        ("a MINE b", "a b", "a NEW b", None),
        ("a b MINE c", "a b c", "a c", None),
        ("A b c d e f MINE h", "a b c d e f g h", "a B c d e f G h", None),
        (f"{MANY} MINE c", f"{MANY} c", f"{MANY.upper()} c", None),
    ],
)
def test_what_merges_and_what_does_not(tmp_path, ours, base, theirs, merged):
    texts = (text.replace(" ", "\n").encode() + b"\n" for text in (ours, base, theirs))
    found = merge_adjacent(Git(tmp_path), *texts)
    assert (found and found.decode().split()) == (merged and merged.split())


def test_a_file_that_ends_without_a_line_break_is_left_to_the_user(tmp_path):
    assert merge_adjacent(Git(tmp_path), b"a\nmine", b"a\nb\n", b"A\nb\n") is None
