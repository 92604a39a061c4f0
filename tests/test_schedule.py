"""Schedules are compared with torch's own, or checked at the points that matter."""

import math
import sys
from dataclasses import dataclass
from types import FunctionType, ModuleType

import pytest
import torch
from helpers.runs import assert_stopped_as_whole, result, rows, the_run
from torch.optim import lr_scheduler


@pytest.fixture(scope="module")
def schedule(engine):
    return engine("schedule")


def curve(schedule, kind, total=100, per_epoch=10, **options):
    horizon = schedule.Horizon(total, per_epoch, lr=0.1)
    made = getattr(schedule, kind)(horizon=horizon, **options)
    return [made.scale_at(step) for step in range(total)]


def torch_curve(kind, total=100, **options):
    optimizer = torch.optim.SGD([torch.zeros(())], lr=0.1, momentum=0.9)
    made = kind(optimizer, **options)
    lrs = []
    for _ in range(total):
        lrs.append(optimizer.param_groups[0]["lr"] / 0.1)
        optimizer.step()
        made.step()
    return lrs


def test_like_torch(schedule):
    close = pytest.approx
    assert curve(schedule, "Cosine") == close(torch_curve(lr_scheduler.CosineAnnealingLR, T_max=100))
    assert curve(schedule, "Step", step_size=30, interval="step") == close(
        torch_curve(lr_scheduler.StepLR, step_size=30)
    )
    assert curve(schedule, "MultiStep", milestones=[3, 7]) == close(
        torch_curve(lr_scheduler.MultiStepLR, milestones=[30, 70])
    )
    assert curve(schedule, "Exponential", gamma=0.9, interval="step") == close(
        torch_curve(lr_scheduler.ExponentialLR, gamma=0.9)
    )
    assert curve(schedule, "Polynomial", power=3.0) == close(
        torch_curve(lr_scheduler.PolynomialLR, total_iters=100, power=3.0)
    )
    assert curve(schedule, "Polynomial", power=1.0, min_scale=0.2) == close(
        torch_curve(lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.2, total_iters=100)
    )


def test_one_cycle(schedule):
    scales = curve(schedule, "OneCycle", pct_start=0.3)
    assert scales[0] == pytest.approx(1 / 25)
    assert max(scales) == scales[30] == pytest.approx(1)
    assert scales[-1] < 0.01


def test_warmup_stable_decay(schedule):
    scales = curve(schedule, "WarmupStableDecay", warmup_fraction=0.1, decay_fraction=0.25)
    assert scales[0] == pytest.approx(1 / 11)
    assert set(scales[10:76]) == {1.0}
    assert scales[99] == pytest.approx(1 - math.sqrt(24 / 25))


def test_inverse_sqrt(schedule):
    scales = curve(schedule, "InverseSqrt", warmup_steps=4)
    assert scales[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert scales[8] == pytest.approx(math.sqrt(1 / 2))
    assert scales[16] == pytest.approx(1 / 2)
    assert scales == curve(schedule, "InverseSqrt", total=1000, warmup_steps=4)[:100]
    assert curve(schedule, "InverseSqrt", timescale=9)[72] == pytest.approx(1 / 3)


def test_restarts(schedule):
    scales = curve(schedule, "Cosine", cycles=4)
    assert scales[25] == scales[50] == scales[75] == 1.0
    assert scales[24] < 0.01


@pytest.mark.parametrize("kind", ["Constant", "Cosine", "Exponential", "Polynomial"])
@pytest.mark.parametrize("warmup", [{"warmup_steps": 20}, {"warmup_epochs": 2}, {"warmup_fraction": 0.2}])
def test_warm_up_in_front_of_any(schedule, kind, warmup):
    scales = curve(schedule, kind, **warmup)
    assert scales[:20] == pytest.approx([(step + 1) / 21 for step in range(20)])
    assert scales[20] == (pytest.approx(0.95**2) if kind == "Exponential" else 1.0)


def test_by_epoch(schedule):
    scales = curve(schedule, "Cosine", interval="epoch")
    assert all(len(set(scales[e : e + 10])) == 1 for e in range(0, 100, 10))
    assert scales[0] > scales[10] > scales[90]


def test_plateau(schedule):
    horizon = schedule.Horizon(100, 10, monitor_mode="max")
    made = schedule.Plateau(horizon=horizon, factor=0.5, patience=1)
    optimizer = torch.optim.SGD([{"params": [torch.zeros(())], "name": "all", "base_lr": 1.0}], lr=1.0)
    made.begin(optimizer)
    seen = []
    for value in (0.1, 0.2, 0.2, 0.1, 0.3, 0.3, 0.3):
        made.observe(value)
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    again = schedule.Plateau(horizon=horizon, factor=0.5, patience=1)
    again.load_state_dict(made.state_dict())
    assert again.scale_at(50) == 0.25


def test_a_subclass_that_changes_a_default_keeps_the_bounds(schedule, engine):
    @dataclass(kw_only=True)
    class Sawtooth(schedule.Schedule):
        warmup_epochs: float = 1
        interval: str = "epoch"

        def scale(self, step):
            return 1 - self.done(step) * 4 % 1

    horizon = schedule.Horizon(100, 10)
    assert Sawtooth(horizon=horizon).warmup == 10
    for wrong in ({"warmup_epochs": -1}, {"interval": "day"}):
        with pytest.raises(engine("errors").UserError, match=str(*wrong.values())):
            Sawtooth(horizon=horizon, **wrong)


TORCH = [
    ("CosineAnnealingLR", {"T_max": 10, "eta_min": 0.01}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 101}),
    ("CosineAnnealingWarmRestarts", {"T_0": 30}),
]


@pytest.mark.parametrize(("name", "options"), TORCH)
def test_any_of_torch(engine, schedule, name, options):
    horizon = schedule.Horizon(100, 10, lr=0.1)
    section = {"_target_": f"torch.optim.lr_scheduler.{name}", "interval": "step", **options}
    made = engine("build.scheduler").build_schedule(section, horizon, [])
    expected = torch_curve(getattr(lr_scheduler, name), **options)
    assert [made.scale_at(step) for step in range(100)] == pytest.approx(expected)


def nested(kind, *schedulers, **options):
    """What a config says for `kind` of torch with these inside, and torch's own objects."""
    section = {"_target_": f"torch.optim.lr_scheduler.{kind}", "interval": "step", **options}
    section["schedulers"] = [{"_target_": f"torch.optim.lr_scheduler.{name}", **own} for name, own in schedulers]

    def by_hand(optimizer):
        made = [getattr(lr_scheduler, name)(optimizer, **own) for name, own in schedulers]
        first = {"optimizer": optimizer} if kind == "SequentialLR" else {}
        return getattr(lr_scheduler, kind)(**first, schedulers=made, **options)

    return section, by_hand


NESTED = [
    nested("SequentialLR", ("LinearLR", {"start_factor": 0.1, "total_iters": 5}), ("CosineAnnealingLR", {"T_max": 30}),
           ("ExponentialLR", {"gamma": 0.9}), milestones=[5, 40]),
    nested("ChainedScheduler", ("ConstantLR", {"factor": 0.1, "total_iters": 4}), ("ExponentialLR", {"gamma": 0.9})),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("section", "by_hand"), NESTED, ids=["sequential", "chained"])
def test_schedulers_of_torch_within_others(engine, schedule, section, by_hand):
    horizon = schedule.Horizon(100, 10, lr=0.1)
    made = engine("build.scheduler").build_schedule(section, horizon, [])
    expected = torch_curve(by_hand)
    assert [made.scale_at(step) for step in range(100)] == expected
    assert [made.scale_at(step) for step in (70, 3, 99)] == [expected[70], expected[3], expected[99]]
    by_epoch = engine("build.scheduler").build_schedule({**section, "interval": "epoch"}, horizon, [])
    assert [by_epoch.scale_at(step) for step in range(100)] == [expected[step // 10] for step in range(100)]


def decay(step):
    return 1 / (1 + step)


@pytest.mark.parametrize("name", [".curves.decay", "digits.curves.decay"])
@pytest.mark.parametrize("as_list", [False, True])
def test_a_function_of_the_project_in_a_lambda(engine, schedule, monkeypatch, name, as_list):
    curves = ModuleType("digits.curves")
    curves.decay = FunctionType(decay.__code__, {"__name__": curves.__name__})
    monkeypatch.setitem(sys.modules, curves.__name__, curves)
    section = {"_target_": "torch.optim.lr_scheduler.LambdaLR", "interval": "step"}
    section["lr_lambda"] = [name] if as_list else name
    made = engine("build.scheduler").build_schedule(section, schedule.Horizon(100, 10, lr=0.1), [])
    assert [made.scale_at(step) for step in range(100)] == torch_curve(lr_scheduler.LambdaLR, lr_lambda=decay)


PLATEAUS = [
    {"mode": "min", "threshold": 0.1, "threshold_mode": "rel", "patience": 1},
    {"mode": "max", "threshold": 0.1, "threshold_mode": "rel", "patience": 0, "cooldown": 2},
    {"mode": "min", "threshold": 0.05, "threshold_mode": "abs", "patience": 2, "cooldown": 1},
    {"mode": "max", "threshold": 0.05, "threshold_mode": "abs", "patience": 1, "min_lr": 0.03},
    {"mode": "min", "threshold": 0.0, "threshold_mode": "rel", "patience": 1},
]


@pytest.mark.parametrize("options", PLATEAUS, ids=str)
def test_a_plateau_is_that_of_torch(schedule, options):
    generator = torch.Generator().manual_seed(7)
    values = (1 + torch.rand(60, generator=generator) / (1 + torch.arange(60) / 9)).tolist()
    alone = torch.optim.SGD([torch.zeros(())], lr=0.1)
    plain = lr_scheduler.ReduceLROnPlateau(alone, factor=0.5, eps=0, **options)

    own = {key: value for key, value in options.items() if key not in ("mode", "min_lr")}
    if "min_lr" in options:
        own["min_scale"] = options["min_lr"] / 0.1
    horizon = schedule.Horizon(1000, 10, lr=0.1, monitor_mode=options["mode"])
    made = schedule.Plateau(horizon=horizon, factor=0.5, **own)
    optimizer = torch.optim.SGD([{"params": [torch.zeros(())], "name": "all", "base_lr": 0.1}], lr=0.1)
    made.begin(optimizer)
    seen = []
    for place, value in enumerate(values):
        plain.step(value)
        made.observe(value)
        seen.append(optimizer.param_groups[0]["lr"])
        assert seen[-1] == pytest.approx(alone.param_groups[0]["lr"], rel=1e-12)
        if place % 7 == 0:  # a resumed run goes on from a state
            state = made.state_dict()
            made = schedule.Plateau(horizon=horizon, factor=0.5, **own)
            made.load_state_dict(state)
            made.begin(optimizer, state["step"])
    assert len(set(seen)) > 2


def test_a_plateau_of_an_old_checkpoint(schedule):
    made = schedule.Plateau(horizon=schedule.Horizon(100, 10))
    state = made.state_dict()
    del state["resting"]
    made.load_state_dict({**state, "bad": 3})
    assert (made.bad, made.resting) == (3, 0)


SAWTOOTH = """
from dataclasses import dataclass

from .engine.api import Schedule, bounded


@dataclass(kw_only=True)
class Sawtooth(Schedule):
    teeth: int = bounded(1, 1000, default=8)

    def scale(self, step: int) -> float:
        return 1 - self.done(step) * self.teeth % 1
"""


def test_a_schedule_of_ones_own_in_one_line(train, workspace):
    (workspace / "digits/schedules.py").write_text(SAWTOOTH)
    line = ("scheduler=.schedules.Sawtooth", "scheduler.teeth=2", "lr=0.5", "max_steps=8", "log.every=1", "logger=none")
    done = train(*line, "name=whole")
    assert done.code == 0, done.out
    lrs = [row["lr/all"] for row in rows(the_run(workspace, "whole")) if "lr/all" in row]
    assert lrs == [0.5 * (1 - step / 8 * 2 % 1) for step in range(8)]
    assert train(*line, "name=stopped", "max_minutes=0.00001").code == 75
    assert train(*line, "name=stopped", "resume=auto").code == 0
    assert_stopped_as_whole(workspace)
    assert "scheduler.teeth=0 is not possible." in train(*line[:1], "scheduler.teeth=0").last
    assert "Did you mean 'scheduler.teeth'?" in train(*line[:1], "scheduler.teth=3").last


def test_a_schedule_with_a_state_that_no_checkpoint_holds(engine, schedule, monkeypatch):
    class Learning(schedule.Schedule):
        def observe(self, value):
            self.current = value

        def scale(self, step):
            return getattr(self, "current", 1.0)

    class Counting(schedule.Schedule):
        calls = 0

        def scale(self, step):
            self.calls += 1
            return 0.9**self.calls

    class Failing(schedule.Schedule):
        def scale(self, step):
            return 1 / step

    curves = ModuleType("digits.curves")
    for kind, words in ((Learning, "no checkpoint holds"), (Counting, "no checkpoint holds"), (Failing, "Zero")):
        kind.__module__ = curves.__name__
        setattr(curves, kind.__name__, kind)
        monkeypatch.setitem(sys.modules, curves.__name__, curves)
        section = {"_target_": f".curves.{kind.__name__}"}
        with pytest.raises(engine("errors").UserError, match=words):
            engine("build.scheduler").build_schedule(section, schedule.Horizon(100, 10, lr=0.1), [])


SEQUENTIAL = ["scheduler=torch.optim.lr_scheduler.SequentialLR", "scheduler.milestones=[3]"]
MISTAKES = [
    ("scheduler.pct_start=3", ["scheduler=one_cycle"]),
    ("scheduler.cycles=0", []),
    ("scheduler.gamma=2", ["scheduler=exponential"]),
    ("scheduler.min_scale=-1", []),
    ("scheduler.warmup_fraction=2", ["scheduler=linear"]),
    ("scheduler.warmup_steps=-1", ["scheduler=constant"]),
    ("val_every_epochs=0", ["scheduler=plateau"]),
    ("scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau", ["scheduler=torch"]),
    ("scheduler.threshold=-1", ["scheduler=plateau"]),
    ("scheduler.threshold_mode=x", ["scheduler=plateau"]),
    ("scheduler.schedulers=[{_target_: torch.optim.lr_scheduler.ReduceLROnPlateau}]", SEQUENTIAL),
    ("scheduler.schedulers=[{_target_: os.system}]", SEQUENTIAL),
    ("scheduler.schedulers=[{_target_: torch.optim.lr_scheduler.StepLR, step_sizes: 3}]", SEQUENTIAL),
    ("scheduler.schedulers=[{step_size: 3}]", SEQUENTIAL),
    ("scheduler.lr_lambda=.task.nothing", ["scheduler=torch.optim.lr_scheduler.LambdaLR"]),
    ("scheduler.lr_lambda=os.system", ["scheduler=torch.optim.lr_scheduler.LambdaLR"]),
    ("scheduler._target_=torch.optim.lr_scheduler.StepLR", ["scheduler=torch"]),
    ("+scheduler.total_steps=5", ["scheduler=torch", "+scheduler.max_lr=1",
                                  "scheduler._target_=torch.optim.lr_scheduler.OneCycleLR"]),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "others"), MISTAKES, ids=[bad for bad, _ in MISTAKES])
def test_mistakes(train, workspace, bad, others):
    done = train(*others, bad)
    assert done.code == 2, done.out
    assert len(done.out.strip().splitlines()) == 1
    assert not (workspace / "runs").exists()


def test_a_one_cycle_run_is_not_made_longer(train, workspace):

    assert train("scheduler=one_cycle", "epochs=1", "logger=none").code == 0
    done = train(f"resume={the_run(workspace)}", "epochs=2")
    assert done.code == 2
    assert "one cycle" in done.last


def test_plateau_resumes_exactly(train, workspace):

    options = ("scheduler=plateau", "scheduler.patience=0", "lr=0.03", "epochs=4", "logger=none")
    assert train(*options, "name=whole").code == 0
    assert train(*options, "name=cut", "max_minutes=0.00001").code == 75
    assert train(*options, "name=cut", "resume=auto").code == 0
    (whole,), (cut,) = ([*(workspace / "runs" / name).iterdir()] for name in ("whole", "cut"))
    assert result(whole) == result(cut)
