"""The verdict on a repeated run, and its report: `reproduce RUN --report FOLDER`. Without torch."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import stdev
from typing import Any

from ..errors import UserError
from ..paths import write_json, write_whole
from ..run.folder import read_metrics
from ..text import say, spread, tell
from .curves import plot
from .folders import new_figure, save_figure, writing_to

IDENTICAL, ROUNDING, DIFFERENT = "identical", "the same within rounding", "different"
FACTOR = 10
"""A difference of at most so many times the spread of rounding is rounding. Another machine rounds
differently in more places than the second repetition."""
LEAST = 2.0**-23
"""The least spread, relative to the size of a value: the rounding of one float32."""

Place = tuple[int, str, int]  # step, tag, and the first step of a training value's window
Values = Mapping[Place, float]


def logged(folder: Path) -> dict[Place, float]:
    """Return the values of a run by their places, without times."""
    values, begin = {}, 0
    for row in read_metrics(folder):
        step, before = row.pop("step"), begin
        for key, value in row.items():
            if key.startswith("train/"):  # a mean, comparable only if it is over the same steps
                values[step, key, before], begin = value, step
            elif not key.startswith("time/"):
                values[step, key, 0] = value
    return values


def distance(one: float, other: float) -> float:
    """Return how far apart two values are. NaN is 0 from NaN, and infinitely far from a number."""
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    return abs(one - other) if math.isfinite(one - other) else math.inf


@dataclass
class Comparison:
    """A run, and what it gave when it was trained again."""

    claimed: Values
    repeated: Values
    results: list[tuple[str, Any, Any]]  # what else differs: name, claimed, repeated
    monitor: str
    other: Values | None = None  # of a second repetition, which rounds differently
    begin: int = 0  # the step after which they were trained

    def __post_init__(self) -> None:
        claimed, repeated, other = self.claimed, self.repeated, self.other or {}
        self.places = sorted(claimed.keys() & repeated.keys())
        self.apart = {p: distance(claimed[p], repeated[p]) for p in self.places}
        self.differing = [place for place in self.places if self.apart[place] > 0]
        # How far the second repetition is from the first; 0 if that is not a number.
        moves = {p: distance(repeated[p], other.get(p, repeated[p])) for p in self.places}
        self.moved = {p: move if math.isfinite(move) else 0.0 for p, move in moves.items()}
        self.is_measured = any(self.moved.values())  # it shows what rounding does
        ends = (place for place in self.places[::-1] if place[1] == self.monitor)
        self.end = next(ends, None)  # the place of the last monitored value

    @cached_property
    def spreads(self) -> dict[Place, float]:
        """How far rounding may have moved each value: the largest move up to twice its step (chance sets
        when it grows), of this value, or of a loss, because an accuracy rarely moves, relative to size."""
        sizes: dict[str, float] = defaultdict(float)
        for (_, tag, _), value in self.claimed.items():
            sizes[tag] = max(sizes[tag], abs(value) if math.isfinite(value) else 0.0)
        own: dict[str, float] = defaultdict(float)
        of_losses, rest, found = LEAST, self.places[::-1], {}
        for place in self.places:
            while rest and rest[-1][0] <= 2 * place[0] - self.begin:
                tag, move = rest[-1][1], self.moved[rest.pop()]
                own[tag] = max(own[tag], move)
                if "loss" in tag and sizes[tag]:
                    of_losses = max(of_losses, move / sizes[tag])
            tag = place[1]
            follows = not tag.startswith(("lr/", "epoch"))  # a schedule does not follow the loss
            found[place] = max(own[tag], (of_losses if follows else LEAST) * sizes[tag])
        return found

    def times(self, place: Place) -> float:
        """Return a difference as a multiple of the spread of rounding."""
        return self.apart[place] / (self.spreads[place] or 5e-324)

    @property
    def verdict(self) -> str:
        if not self.differing:
            return DIFFERENT if self.results else IDENTICAL
        largest = FACTOR * self.spreads[self.end] if self.end else 0.0
        for name, one, again in self.results:
            is_value = name.startswith(("last", "best")) and None not in (one, again)
            if "sha256" not in name and not (is_value and distance(one, again) <= largest):
                return DIFFERENT
        is_near = all(self.times(place) <= FACTOR for place in self.differing)
        return ROUNDING if self.is_measured and is_near else DIFFERENT

    @property
    def first(self) -> str:
        """The first difference, in words."""
        if self.differing:
            step, tag, _ = self.differing[0]
            return f"different: first at step {step} in {tag}: {self.both(self.differing[0])}."
        name, one, again = self.results[0]
        return f"different: {name}: {one!s:.24}, and again {again!s:.24}."

    def both(self, place: Place) -> str:
        return f"{self.claimed[place]!r}, and again {self.repeated[place]!r}"

    def described(self, place: Place | None) -> dict[str, Any] | None:
        if place is None:
            return None
        values = {"claimed": self.claimed[place], "repeated": self.repeated[place]}
        times = self.times(place) if self.is_measured else None
        return {"step": place[0], "tag": place[1], **values, "times_the_spread": times}


def write_report(
    folder: Path, compared: Comparison, about: Mapping[str, Any], seeds: Sequence[float]
) -> str:
    """Write report.txt, report.json and report.png. Return the verdict. Raises `UserError`.

    about: more facts for report.json. seeds: last monitored values of runs that differ in their seed.
    """
    worst = max(compared.differing, key=compared.times, default=None)
    facts = {
        "verdict": compared.verdict,
        **about,
        "compared": len(compared.places),
        "differing": len(compared.differing),
        "first_difference": compared.described(next(iter(compared.differing), None)),
        "largest_difference": compared.described(worst),
        "end": compared.described(compared.end),
        "seeds": seeds,
    }
    lines = list(_lines(compared, facts, worst))
    with writing_to(folder):
        write_whole(folder / "report.txt", "\n".join(lines) + "\n")
        write_json(folder / "report.json", facts)
    tell(*lines, f"The report: {folder}")
    try:
        _draw(compared, folder / "report.png")
    except UserError as error:  # the report counts without its picture
        say(str(error))
    return compared.verdict


def _lines(c: Comparison, facts: Mapping[str, Any], worst: Place | None) -> Iterator[str]:
    begin, end = facts["steps"]
    yield f"{c.verdict}: steps {begin + 1} to {end} of {facts['run']}"
    yield f"  trained again in {facts['repetition']}"
    if c.verdict == IDENTICAL:
        hashes = f"; hashes of weights: {facts['hashes']} equal" if facts["hashes"] else ""
        yield f"  logged values: {len(c.places)} equal{hashes}"
        return
    yield f"  {len(c.differing)} of {len(c.places)} logged values differ"
    yield f"  {c.first}"
    if worst and c.is_measured:
        yield f"  That is {c.times(c.differing[0]):.2g} times the spread of rounding."
        yield f"  The largest is {c.times(worst):.2g} times, at step {worst[0]} in {worst[1]}: {c.both(worst)}."
        yield f"  Up to {FACTOR} times is rounding. It was measured with {facts['rounding']}."
    elif worst:
        yield f"  What rounding does could not be measured with {facts['rounding']}."
    if c.end:
        seeds = facts["seeds"]
        yield f"  at the end, {c.end[1]} is {c.both(c.end)}"
        if len(seeds) > 1:
            side = "within" if c.apart[c.end] <= stdev(seeds) else "beyond"
            yield f"  That is {side} the deviation over {len(seeds)} seeds: {spread(seeds)}."
        else:
            yield "  The deviation over seeds is not known. --seeds 3 trains three more."
    reasons = facts["reasons"] or ["No reason is known."]
    yield from (f"  {reason}" for reason in reasons[:20])
    if len(reasons) > 20:
        yield f"  … and {len(reasons) - 20} more in report.json"


def _draw(c: Comparison, path: Path) -> None:
    """Draw the loss and the monitored value of both runs, and how far they are apart."""
    known = {tag for _, tag, _ in c.places}
    tags = [tag for tag in dict.fromkeys(("train/loss", c.monitor)) if tag in known]
    figure, (*panels, below) = new_figure(8, 3 + 2.3 * len(tags), len(tags) + 1)
    below.set_yscale("symlog", linthresh=1e-9)  # with a place for 0

    def line(axes: Any, tag: str, value: Any, label: str, style: str) -> None:
        rows = [{"step": place[0], tag: value(place)} for place in c.places if place[1] == tag]
        plot(axes, rows, tag, label, 40, color=f"C{tags.index(tag)}", linestyle=style)

    for axes, tag in zip(panels, tags, strict=True):
        line(axes, tag, c.claimed.get, "claimed", "-")
        line(axes, tag, c.repeated.get, "repeated", "--")
        axes.set_ylabel(tag)
        line(below, tag, c.apart.get, tag, "-")
        if c.other is not None:
            line(below, tag, c.moved.get, f"{tag}, rounding", ":")
    below.set(
        xlabel="optimizer step", ylabel="distance", ylim=(0, max(1e-8, 2 * below.get_ylim()[1]))
    )
    save_figure(figure, path)
