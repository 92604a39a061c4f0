"""Changes of different lines merge, and code and comment of one line; two changes of the same do not."""

import pytest

from ostinato.text import SMALL, carried, changes, merge_text

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
def test_what_merges_and_what_does_not(ours, base, theirs, merged):
    found = merge_text(*(text.replace(" ", "\n").encode() + b"\n" for text in (ours, base, theirs)), "new")
    assert bool(found.left) == (merged is None)
    assert merged is None or found.text.decode().split() == merged.split()


@pytest.mark.parametrize(
    ("ours", "base", "theirs", "merged"),
    [
        ("a = 2  # one", "a = 1  # one", "a = 1  # two", "a = 2  # two"),
        ("a = 1  # mine", "a = 1", "a = 2", "a = 2  # mine"),
        ("a = 1", "a = 1  # one", "a = 2  # one", "a = 2"),
        ("a = 2  # mine", "a = 1  # one", "a = 1  # two", None),
        ("a = 3  # one", "a = 1  # one", "a = 2  # two", None),
        ("# mine", "# one", "# two", None),
    ],
)
def test_code_and_comment_of_a_line_merge_apart(ours, base, theirs, merged):
    found = merge_text(*(f"first\n{text}\nlast\n".encode() for text in (ours, base, theirs)), "new")
    assert bool(found.left) == (merged is None)
    assert merged is None or found.text.decode() == f"first\n{merged}\nlast\n"


def test_a_conflict_shows_both_sides():
    found = merge_text(b"a\nmine", b"a\nb", b"a\nB", "template-2")
    assert found.text == b"a\n<<<<<<< yours\nmine\n=======\nB\n>>>>>>> template-2\n"
    assert found.without == b"a\nB"


def test_the_same_change_of_both_sides_is_made_once():
    found = merge_text(b"a\nB\nc\n", b"a\nb\nc\n", b"a\nB\nc\nd\n", "new")
    assert (found.text, found.left) == (b"a\nB\nc\nd\n", [])


BASE = b"def one():\n    first_line = 1\n    second_line = 2\n\n\ndef two():\n    pass\n"
MOVED = b"class Two:\n    def one(self):\n        first_line = 1\n        second_line = 2\n"


@pytest.mark.parametrize(
    ("mine", "carried_text"),
    [
        (BASE.replace(b"= 1\n", b"= 1\n    mine()\n"), MOVED.replace(b"= 1\n", b"= 1\n        mine()\n")),
        (BASE.replace(b"second_line = 2", b"mine()"), MOVED.replace(b"second_line = 2", b"mine()")),
        (BASE.replace(b"    second_line = 2\n", b""), MOVED.replace(b"        second_line = 2\n", b"")),
        (BASE.replace(b"pass", b"mine()"), None),  # this code is gone
        (BASE.replace(b"    pass\n", b"    pass\n    mine()\n"), None),
        (BASE.replace(b"    pass\n", b""), MOVED),  # and so it is
    ],
)
def test_a_change_is_carried_to_where_its_lines_are_now(mine, carried_text):
    texts = {"moved": MOVED, "other": b"def three():\n    return None\n"}
    now = carried(changes(BASE, mine), BASE, texts, "gone")
    assert now == (carried_text and {**texts, "moved": carried_text})
    twice = {**texts, "again": MOVED}  # then nobody knows which place is meant
    assert (carried(changes(BASE, mine), BASE, twice, "gone") is None) == (carried_text != MOVED)
    base, mine = BASE + BASE, BASE + mine  # and then nobody knows which of two is there now
    assert (carried(changes(base, mine), base, texts, "gone") is None) == (carried_text != MOVED)


@pytest.mark.parametrize(
    ("mine", "theirs", "merged"),
    [
        ("one\ntwo\nMINE\nend\n", "one\nend\n", "one\nMINE\nend\n"),
        ("one\nMINE\ntwo\nend\n", "one\nend\n", "one\nMINE\nend\n"),
        ("one\ntwo\nMINE\nend\n", "one\n  two!\n  three\nend\n", "one\n  two!\n  three\nMINE\nend\n"),
        ("one\nMINE\ntwo\nend\n", "one\nNEW\ntwo\nend\n", None),
    ],
)
def test_an_insertion_keeps_its_place_between_lines_that_changed(mine, theirs, merged):
    base = b"one\ntwo\nend\n"
    found = merge_text(mine.encode(), base, theirs.encode(), "new")
    now = carried(found.left, base, {"own": found.without}, "own")
    assert (now and now["own"].decode()) == merged


def test_an_insertion_follows_a_line_that_the_template_reworded():
    base = b'def name():\n    """A path or a word."""\n    return text\n\n'
    theirs = b'def name():\n    """A path or another word."""\n    return str(other)\n\n'
    mine = base.replace(b'word."""\n', b'word."""\n    mine()\n')
    found = merge_text(mine, base, theirs, "new")
    now = carried(found.left, base, {"own": found.without}, "own")
    assert now == {"own": theirs.replace(b'word."""\n', b'word."""\n    mine()\n')}
