"""Merge three versions of a text line by line. No setting, attribute or merge driver of git takes part."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from typing import TypeVar

SMALL = 5
"""How many lines the template may replace beside an owner's change. After a larger change the owner should look."""
TELLING = 12
"""How many characters tell the place of a change."""
HALVES = re.compile(rb"(.*?)([ \t]+#[^\r\n]*)?([\r\n]*)", re.DOTALL)
"""A line: its code, the comment at its end, and the line break."""
Lines = list[bytes]
T = TypeVar("T")


@dataclass(frozen=True)
class Hunk:
    """`lines` replace the lines from `start` to `stop` of the base."""

    start: int
    stop: int
    lines: Lines
    is_mine: bool

    def keeps_its_neighbours(self) -> bool:
        """True unless a line of the owner beside this change may have lost its place."""
        return self.is_mine or (self.stop - self.start <= SMALL and (bool(self.lines) or self.start == self.stop))


@dataclass
class Merged:
    text: bytes
    """With conflict markers where both sides changed the same."""
    without: bytes
    """With the template's side there."""
    left: list[Hunk]
    """The owner's changes there."""


def merge_text(mine: bytes, base: bytes, other: bytes, name: str) -> Merged:
    """Merge two changes of a text. `name` stands at the conflict markers of `other`."""
    lines = base.splitlines(keepends=True)
    hunks = [*changes(base, mine), *changes(base, other, is_mine=False)]
    merged, without, left = Lines(), Lines(), list[Hunk]()
    end = 0
    for group in _groups(sorted(hunks, key=lambda hunk: (hunk.start, hunk.stop))):
        start, stop = group[0].start, max(hunk.stop for hunk in group)
        yours = _applied(lines, start, stop, [hunk for hunk in group if hunk.is_mine])
        others = _applied(lines, start, stop, [hunk for hunk in group if not hunk.is_mine])
        together = _together(yours, lines[start:stop], others, group)
        if together is None:
            left += [hunk for hunk in group if hunk.is_mine]
        merged += lines[end:start] + (_marked(yours, others, name) if together is None else together)
        without += lines[end:start] + (others if together is None else together)
        end = stop
    return Merged(b"".join(merged + lines[end:]), b"".join(without + lines[end:]), left)


def carried(hunks: Iterable[Hunk], base: bytes, texts: Mapping[str, bytes], own: str) -> dict[str, bytes] | None:
    """Make an owner's changes where the changed lines of `base` are now, in one of the texts by path.

    `own` is the path of the file itself. Return the texts, or None if a change has no clear place.
    """
    lines = base.splitlines(keepends=True)
    now = {path: text.splitlines(keepends=True) for path, text in texts.items()}
    for hunk in hunks:
        exact = (_exact(hunk, lines, start, stop, now.values()) for start, stop in _anchors(hunk, lines))
        place = next((found for found in exact if found is not None), None)
        if place is None and own in now:
            place = _near(hunk, lines, now[own])
        if place is not None:
            text, start, before, after = place
            added = [after + line.removeprefix(before) if line.startswith(before) else line for line in hunk.lines]
            text[start : start + hunk.stop - hunk.start] = added
        elif hunk.lines or any(_alike(line, text) for line in lines[hunk.start : hunk.stop] for text in now.values()):
            return None  # but lines that the owner deleted, and that nothing resembles, are gone already
    return {path: b"".join(text) for path, text in now.items()}


Place = tuple[Lines, int, bytes, bytes]
"""Where a change begins, in which text, and the old and the new indentation."""


def _anchors(hunk: Hunk, base: Lines) -> Iterator[tuple[int, int]]:
    """Yield the lines of the base that tell the place of a change: those it replaces, or those around an insertion."""
    if hunk.start < hunk.stop:
        yield hunk.start, hunk.stop
        return
    above = next((n for n in range(hunk.start - 1, -1, -1) if base[n].strip()), hunk.start)
    below = next((n for n in range(hunk.start, len(base)) if base[n].strip()), hunk.start - 1)
    yield above, below + 1
    yield above, hunk.start
    yield hunk.start, below + 1


def _exact(hunk: Hunk, base: Lines, start: int, stop: int, texts: Iterable[Lines]) -> Place | None:
    """Return the only place with the lines from `start` to `stop` of the base, however they are indented."""
    wanted = [line.strip() for line in base[start:stop]]

    def places(text: Lines) -> list[tuple[Lines, int]]:
        last = len(text) - len(wanted)
        return [(text, n) for n in range(last + 1) if [line.strip() for line in text[n : n + len(wanted)]] == wanted]

    found = [place for text in texts for place in places(text)]
    if sum(map(len, wanted)) < TELLING or len(found) != 1 or len(places(base)) != 1:
        return None
    text, n = found[0]
    known = next(k for k, line in enumerate(wanted) if line)
    return text, n + hunk.start - start, _indent(base[start + known]), _indent(text[n + known])


def _near(hunk: Hunk, base: Lines, text: Lines) -> Place | None:
    """Return the place of an insertion in lines that the template replaced: at their end, or by a line alike."""
    for kind, start, stop, first, last in SequenceMatcher(None, base, text, autojunk=False).get_opcodes():
        if kind not in ("replace", "delete") or hunk.start < hunk.stop or not start <= hunk.start <= stop:
            continue
        if hunk.start in (start, stop):
            return text, first if hunk.start == start else last, b"", b""
        for n in (hunk.start - 1, hunk.start):
            if (found := _alike(base[n], text[first:last])) is not None:
                return text, first + found + (n < hunk.start), _indent(base[n]), _indent(text[first + found])
    return None


def _alike(line: bytes, lines: Lines) -> int | None:
    """Return the number of the line that is most alike."""
    texts = [other.strip().decode(errors="replace") for other in lines]
    found = get_close_matches(line.strip().decode(errors="replace"), texts, n=1) if line.strip() else []
    return texts.index(found[0]) if found else None


def _indent(line: bytes) -> bytes:
    return line[: len(line) - len(line.lstrip())]


def changes(base: bytes, text: bytes, *, is_mine: bool = True) -> Iterator[Hunk]:
    """Yield the changes that lead from one text to another."""
    old, lines = base.splitlines(keepends=True), text.splitlines(keepends=True)
    for kind, start, stop, first, last in SequenceMatcher(None, old, lines, autojunk=False).get_opcodes():
        if kind != "equal":
            yield Hunk(start, stop, lines[first:last], is_mine)


def _groups(hunks: Iterable[Hunk]) -> Iterator[list[Hunk]]:
    """Put hunks together that overlap or touch."""
    group: list[Hunk] = []
    for hunk in hunks:
        if group and hunk.start > max(one.stop for one in group):
            yield group
            group = []
        group.append(hunk)
    if group:
        yield group


def _applied(base: Lines, start: int, stop: int, hunks: Iterable[Hunk]) -> Lines:
    """Return the lines from `start` to `stop` with these changes."""
    lines: Lines = []
    for hunk in hunks:
        lines += [*base[start : hunk.start], *hunk.lines]
        start = hunk.stop
    return lines + base[start:stop]


def _together(mine: Lines, base: Lines, other: Lines, group: list[Hunk]) -> Lines | None:
    """Return both changes of a place; None if they are in conflict."""
    whole = _three_way(mine, base, other)
    if whole is not None:
        return whole
    if len(group) == 2 and all(hunk.keeps_its_neighbours() for hunk in group):
        first, second = group
        if first.stop <= second.start and (first.start, first.stop) != (second.start, second.stop):
            return first.lines + second.lines
    if len(base) != len(mine) or len(base) != len(other):
        return None
    merged: Lines = []
    for versions in zip(mine, base, other, strict=True):
        parts = [_three_way(*three) for three in zip(*map(halves, versions), strict=True)]
        if None in parts:
            return None
        merged.append(b"".join(part for part in parts if part is not None))
    return merged


def _three_way(mine: T, base: T, other: T) -> T | None:
    """Return the one that changed; None if both changed differently."""
    if mine in (base, other):
        return other
    return mine if other == base else None


def halves(line: bytes) -> tuple[bytes, ...]:
    """Return code, comment and line break of a line."""
    found = HALVES.fullmatch(line)
    assert found is not None
    return found.groups(b"")


def _marked(mine: Lines, other: Lines, name: str) -> Lines:
    lines = [b"<<<<<<< yours\n", *mine, b"=======\n", *other, f">>>>>>> {name}\n".encode()]
    return [line if line.endswith(b"\n") else line + b"\n" for line in lines]
