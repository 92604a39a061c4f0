"""`Share`: how often something holds, counted in its step."""

import pytest
import torch


def test_a_share_is_counted_in_its_step(windows, engine):
    Share, drawn = engine("api").Share, torch.Generator().manual_seed(0)
    steps = [torch.rand(samples, generator=drawn) for samples in (8, 8, 3, 8, 1)]
    entries = [{"source": key, "name": f"{key}s", "statistic": "max", "window": 1} for key in ("high", "x")]
    ours = windows.Statistics(torch.device("cpu"), entries)
    for step, values in enumerate(steps):
        shared = values.clone()
        high, low = Share(lambda v: v > 0.5, shared), Share(lambda a, b: a[:, 0] < b, shared[:, None], 1 - shared)
        ours.add(step, {"loss": torch.tensor(0.0), "high": high, "low": low, "x": torch.tensor(float(step))}, 1)
        shared.zero_()  # as an owner may: the share was counted before
        ours.fetch()
        named = ours.log_point()
        assert (named["train/highs"], named["train/xs"]) == ((values > 0.5).double().mean().item(), step)
    means = ours.epoch_end()
    total = sum((values > 0.5).sum().item() for values in steps)
    assert means["train_epoch/high"] == pytest.approx(total / 28, abs=1e-12)
    assert means["train_epoch/high"] + means["train_epoch/low"] == pytest.approx(1)


@pytest.mark.parametrize("holds", [lambda x: x, lambda x: x[:2] > 0])
def test_a_share_that_is_none_is_named(windows, engine, holds):
    api, ours = engine("api"), windows.Statistics(torch.device("cpu"))
    with pytest.raises(api.UserError, match=r"The Share 'acc' is torch\..*\. Return bool \[4\]"):
        ours.add(0, {"acc": api.Share(holds, torch.rand(4))}, 4)


def test_a_share_weighs_as_much_as_it_has_rows(windows, engine):
    Share, ours = engine("api").Share, windows.Statistics(torch.device("cpu"))
    for step, values in enumerate([torch.ones(1), torch.zeros(4), torch.zeros(0)]):
        ours.add(step, {"loss": torch.tensor(1.0), "acc": Share(lambda x: x > 0, values)}, 8)
    ours.fetch()
    assert ours.means() == {"loss": 1.0, "acc": pytest.approx(0.2)}


def test_shares_means_and_numbers_stay_with_their_steps(windows, engine, monkeypatch):
    """However they are mixed, fetched together, and joined on the device in between."""
    api, means = engine("api"), engine("means")
    monkeypatch.setattr(windows.Statistics, "_JOIN", 7)
    ours, drawn, right = windows.Statistics(torch.device("cpu")), torch.Generator().manual_seed(0), {}
    for step in range(40):
        rows = torch.rand(1 + step % 5, generator=drawn)
        n = torch.tensor(float(1 + step % 3))
        values = {
            "above": api.Share(lambda v: v > 0.5, rows),
            "loss": rows.mean(),
            "weighed": means.Mean(rows.max(), n),
            "below": api.Share(lambda v: v < 0.2, rows),
        }
        if step % 4 == 0:
            del values["above"]
        ours.add(step, values, len(rows))
        right.setdefault("above", []).extend((rows > 0.5).tolist() if step % 4 else [])
        right.setdefault("below", []).extend((rows < 0.2).tolist())
        right.setdefault("loss", []).extend(rows.tolist())
        right.setdefault("weighed", []).extend([rows.max().item()] * int(n))
    ours.fetch()
    assert ours.means() == {key: pytest.approx(sum(all_) / len(all_), rel=1e-6) for key, all_ in right.items()}
