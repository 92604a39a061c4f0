"""Networks that a task holds: their mode, their state, and weights that nobody trains."""

import pytest
import torch
from helpers import snippets
from helpers.runs import result, the_run
from torch import nn

SHORT = ("model=mlp", "logger=none", "log.curves=false", "monitor=val/loss", "epochs=2", "limit_train_batches=4")


@pytest.fixture
def workspace(workspace):
    snippets.add(workspace, "digits/teaching.py")
    return workspace


def state_of(workspace, name):
    return torch.load(max((the_run(workspace, name) / "checkpoints").glob("step-*8.pt")))


def test_a_validation_changes_no_state_of_the_task(train, workspace):
    """A teacher's statistics and a count are the same however often the run validates."""
    for name, often in (("often", "val_every_steps=1"), ("seldom", "val_every_epochs=2")):
        done = train(*SHORT, "task._target_=.teaching.Taught", often, f"name={name}")
        assert done.code == 0, done.out
    often, seldom = (state_of(workspace, name)["task"] for name in ("often", "seldom"))
    assert often["calls"] == seldom["calls"] == 8
    for key, value in often["teacher"].items():
        assert torch.equal(value, seldom["teacher"][key]), key
    assert often["teacher"]["1.num_batches_tracked"] == 8
    assert (
        result(the_run(workspace, "often"))["weights_sha256"] == result(the_run(workspace, "seldom"))["weights_sha256"]
    )


def test_a_buffer_that_changes_in_each_forward(train, workspace):
    (workspace / "digits/counting.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Counting(nn.Sequential):\n"
        "    def __init__(self):\n        super().__init__(nn.Flatten(), nn.Linear(64, 10))\n"
        "        self.register_buffer('calls', torch.zeros(()))\n\n"
        "    def forward(self, x):\n        self.calls = self.calls + 1\n        return super().forward(x)\n"
    )
    (workspace / "configs/model/counting.yaml").write_text("_target_: .counting.Counting\n")
    for name, more in (("often", "val_every_steps=1"), ("seldom", "val_every_epochs=2"), ("ema", "ema_decay=0.9")):
        assert train("model=counting", *SHORT[1:], more, f"name={name}").code == 0
        assert state_of(workspace, name)["model"]["calls"] == 8, name
    assert state_of(workspace, "ema")["ema"]["calls"] == 8


def test_a_teacher_in_eval_mode_stays_in_it(train, workspace):
    done = train(*SHORT, "task._target_=.teaching.Resting", "val_every_steps=1", "batch_size=64")
    assert done.code == 0, done.out
    assert state_of(workspace, "default")["task"]["calls"] == 4 * 8


@pytest.mark.parametrize(("name", "attribute"), [("Learning", "heads"), ("Weighing", "scale"), ("AsModule", "head")])
def test_weights_that_nobody_trains_are_refused(train, workspace, name, attribute):
    done = train(*SHORT, f"task._target_=.teaching.{name}")
    assert done.code == 2, done.out
    assert f" in the task's {attribute} get a gradient" in done.last
    assert done.out.count("\n") == 1, done.out
    assert not (workspace / "runs").exists()


def test_a_task_may_train_its_weights_itself(train, workspace):
    assert train(*SHORT, "task._target_=.teaching.Stepping").code == 0
    assert state_of(workspace, "default")["task"]["head"]["3.bias"].abs().sum() > 0


def test_verbs_put_them_in_eval_mode(train, server, workspace):
    assert train(*SHORT, "task._target_=.teaching.Taught").code == 0
    run = str(the_run(workspace))
    done = server.run(workspace / "digits/__main__.py", "evaluate", run)  # the task asserts it
    assert done.code == 0, done.out


def test_they_move_to_the_device(engine, project, monkeypatch):
    setup = engine("setup")
    monkeypatch.chdir(project)
    config, build = engine("launch").compose("device=cpu"), setup.build

    def build_with_teacher(section, name, *rest):
        built = build(section, name, *rest)
        if name == "task":
            built.teachers = [{"one": nn.Linear(2, 2)}]
        return built

    monkeypatch.setattr(setup, "build", build_with_teacher)
    monkeypatch.setattr(setup, "choose_device", lambda _: torch.device("meta"))
    assert setup.build_model(config).task.teachers[0]["one"].weight.is_meta
