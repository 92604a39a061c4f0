"""The average of the weights: its decay may warm up, and a decay that a short run cannot fill is told."""

import pytest
import torch
from helpers.runs import assert_stopped_as_whole
from torch import nn

QUICK = ("model=mlp", "logger=none", "epochs=1", "log.every=5")


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_a_decay_that_warms_up(engine, decay):
    model = nn.Linear(3, 2).double()
    averaged = engine("build.averaged").Averaged(model, decay, warmup=True)
    expected = model.weight.detach().clone()
    for t in range(30):
        nn.init.normal_(model.weight, generator=torch.Generator().manual_seed(t))
        averaged.update(model)
        now = min(decay, (1 + t) / (10 + t))
        expected = now * expected + (1 - now) * model.weight.detach()
        torch.testing.assert_close(averaged.model.weight, expected)


def test_it_resumes_exactly(train, workspace):
    options = (*QUICK, "ema_decay=0.95", "ema_warmup=true")
    assert train(*options, "name=whole").code == 0
    while (done := train(*options, "name=stopped", "resume=auto", "max_minutes=1e-9")).code == 75:
        pass
    assert done.code == 0, done.out
    assert_stopped_as_whole(workspace)


def test_a_run_that_is_too_short_for_its_average(train, workspace):
    done = train(*QUICK, "ema_decay=0.999")
    assert done.code == 0
    left = 0.999**20  # the first weights' share after the run's 20 steps
    assert f"at the end, {left:.0%} of the average are still the first weights" in done.out
    suggested = done.out.split("Set ema_warmup=true or ")[1].split()[0].rstrip(".")
    assert float(suggested.removeprefix("ema_decay=")) ** 20 < 0.02
    for fine in ("ema_decay=0.89", suggested):
        assert "first weights" not in train(*QUICK, fine).out
    assert "first weights" not in train(*QUICK, "ema_decay=0.999", "ema_warmup=true").out


def test_a_warm_up_of_no_average_is_refused(train):
    done = train(*QUICK, "ema_warmup=true")
    assert done.code == 2
    assert "ema_warmup=true needs an average. Set ema_decay=0.999, or leave it out." in done.last
