"""Merge small changes that lie beside each other. git calls them a conflict, although they share no line."""

import re

from .git import Git

SMALL = 5
"""How many lines the template may replace beside a user's change. After a larger change the user should look."""
MARKS = 40  # characters of a marker, so that no file holds one
CONFLICT = re.compile(
    rb"^<{%d} yours\n(.*?)^\|{%d} base\n(.*?)^={%d}\n(.*?)^>{%d} template\n" % (MARKS, MARKS, MARKS, MARKS),
    re.MULTILINE | re.DOTALL,
)
Lines = list[bytes]


def merge_adjacent(git: Git, ours: bytes, base: bytes, theirs: bytes) -> bytes | None:
    """Return the merged text, or None if a conflict remains. It writes files into git's folder."""
    texts = {"yours": ours, "base": base, "template": theirs}
    if not all(text.endswith(b"\n") for text in texts.values()):
        return None
    for name, text in texts.items():
        (git.folder / name).write_bytes(text)
    _, merged, _ = git.run("merge-file", "-p", "--diff3", f"--marker-size={MARKS}", *texts)
    joined = CONFLICT.sub(_join, merged)
    return None if CONFLICT.search(joined) else joined


def _join(conflict: re.Match[bytes]) -> bytes:
    """Return both changes if one ends where the other begins, in exactly one way. Else return the conflict."""
    ours, base, theirs = (part.splitlines(keepends=True) for part in conflict.groups())
    found = set()
    for cut in range(len(base) + 1):
        above, below = base[:cut], base[cut:]
        if (top := _before(theirs, below)) is not None and ours[:cut] == above and _is_small(above, top):
            found.add(b"".join([*top, *ours[cut:]]))
        if (top := _before(ours, below)) is not None and theirs[:cut] == above and _is_small(below, theirs[cut:]):
            found.add(b"".join([*top, *theirs[cut:]]))
    return found.pop() if len(found) == 1 else conflict[0]


def _before(lines: Lines, end: Lines) -> Lines | None:
    """Return the lines before `end`, or None if they do not end so."""
    cut = len(lines) - len(end)
    return lines[:cut] if cut >= 0 and lines[cut:] == end else None


def _is_small(old: Lines, new: Lines) -> bool:
    """True for a change of the template that leaves a user's line beside it in its place: a deletion may not."""
    return len(old) <= SMALL and (bool(new) or not old)
