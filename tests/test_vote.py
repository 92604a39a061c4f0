"""Processes vote on stopping, seldom where steps are quick."""

import itertools
from types import SimpleNamespace

import pytest
import torch


@pytest.mark.parametrize(("seconds", "every"), [(1.0, 1), (0.03, 1), (0.0099, 5), (0.0001, 16)])
def test_processes_vote_less_often_where_steps_are_quick(engine, monkeypatch, seconds, every):
    """A vote costs more than a small step. The slowest process decides how often to vote."""
    distributed, other, ballots = engine("machine.distributed"), SimpleNamespace(asks=0.0), []

    def all_reduce(ballot, *_, **__):
        ballot[0] = max(ballot[0], other.asks)
        ballot[1] = seconds
        ballots.append(ballot)
        return SimpleNamespace(wait=lambda: None)

    monkeypatch.setattr(distributed, "_hosts", object())
    monkeypatch.setattr(distributed, "_dist", torch.distributed)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    vote = distributed.Vote()
    assert not any(vote.ask(False) for _ in range(10 * every))
    assert 10 <= len(ballots) <= 12
    other.asks = 1.0
    assert next(calls for calls in itertools.count(1) if vote.ask(False)) <= 2 * every
    other.asks = 0.0
    while vote.ask(False):
        pass
    assert next(calls for calls in itertools.count(1) if vote.ask(True)) <= 3 * every
    vote.restart()
    assert next(calls for calls in itertools.count(1) if vote.ask(True)) == 2, "a slow validation is heard at once"


def test_a_validation_hears_a_stop_however_quick_the_steps_were(looped):
    loop, restarted = looped("model=mlp", "epochs=2", "limit_train_batches=3", "limit_val_batches=1"), []
    loop.vote.restart = lambda: restarted.append(loop.step)
    loop.fit()
    assert restarted == [3, 3, 6, 6, 6], "before each validation, after it and at the end"
