"""The time that is left, shown during a run."""

import math
from types import SimpleNamespace

import pytest


def test_steps_that_something_is_due_after(engine):
    due = engine("log.report").due
    for every in ((3,), (0,), (4, 6), (0, 5), (3, 3)):
        for first in range(1, 14):
            for last in range(first, 14):
                steps = {s for s in range(first, last + 1) for n in every if n and s % n == 0} | {last}
                assert due(first, last, every) == len(steps), (every, first, last)
    assert due(1, 10**15, (1, 0)) == 10**15, "nothing counts steps one by one"


class Clock:
    now = 100.0


@pytest.fixture
def clock(engine, monkeypatch) -> Clock:
    """The clock that `Eta` reads."""
    clock = Clock()
    monkeypatch.setattr(engine("log.report"), "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def drive(eta, clock, steps: range, validate_every: int, seconds=(2.0, 30.0, 5.0)) -> None:
    """Steps of 2 s (the first one 50), each validation 30 s with a save of 5 s in it."""
    for step in steps:
        clock.now += 50 if step == steps[0] else seconds[0]
        if step == steps[0]:
            eta.first_step_ended()
        if step % validate_every == 0 and step != steps[-1]:
            with eta.aside("validation"):
                clock.now += seconds[1]
                with eta.aside("save"):
                    clock.now += seconds[2]


@pytest.mark.parametrize("done", [0, 40])
def test_eta_counts_validations_and_saves(engine, clock, done):
    """A resumed run counts only its own steps."""
    eta = engine("log.report").Eta(done, 100, {"validation": (10, 0), "save": (100, 0)}, 5)
    drive(eta, clock, range(done + 1, done + 6), 10)
    # Nothing was validated yet: each of its 5 batches counts as a step.
    left = 100 - done - 5
    assert eta.left(done + 5) == left * 2 + math.ceil(left / 10) * 5 * 2
    eta = engine("log.report").Eta(done, 100, {"validation": (10, 0), "save": (100, 0)}, 5)
    drive(eta, clock, range(done + 1, done + 31), 10)
    left = 100 - done - 30  # the validation after the last step is still to come
    assert eta.left(done + 30) == left * 2 + (left // 10 + 1) * 35
    assert eta.training() == 50 + 29 * 2


def test_eta_is_known_after_the_first_step(engine, clock):
    eta = engine("log.report").Eta(0, 3, {"save": (0, 0)}, 0)
    clock.now += 4
    assert eta.left(1) == 8
    with eta.aside("save"):
        clock.now += 7
    assert eta.left(3) == 7
