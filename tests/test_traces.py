"""Evaluations, pictures and trial passes leave no trace in what is trained."""

import pytest
import torch
from helpers import snippets
from helpers.runs import the_run

SHORT = ("logger=none", "log.curves=false", "monitor=val/loss", "epochs=2", "limit_train_batches=3", "model=traced")


@pytest.fixture
def workspace(workspace):
    snippets.add(workspace, "digits/traces.py")
    (workspace / "configs/model/traced.yaml").write_text("_target_: .traces.Net\n")
    return workspace


def state_of(workspace, name):
    return torch.load(max((the_run(workspace, name) / "checkpoints").glob("step-*6.pt")))


def assert_equal(one, other, place=""):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_equal(one[key], other[key], f"{place}/{key}")
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, place


OFTEN, SELDOM = "val_every_steps=1", "val_every_epochs=2"
PAIRS = {
    "an embedding with a largest norm": ("model._target_=.traces.Renormalised", OFTEN, SELDOM),
    "a weight and a count": ("model._target_=.traces.Momentum", OFTEN, SELDOM),
    "a mode that the task sets": ("task._target_=.traces.Freezing", OFTEN, SELDOM),
    "pictures and texts": ("task._target_=.traces.Drawing", f"{OFTEN} logger=tensorboard", OFTEN),
}


@pytest.mark.parametrize("what", PAIRS)
def test_runs_end_alike(train, workspace, what):
    target, *sides = PAIRS[what]
    for name, side in zip(("one", "other"), sides, strict=True):
        done = train(*SHORT, target, *side.split(), f"name={name}")
        assert done.code == 0, done.out
        assert "No pictures" not in done.out
    one, other = (state_of(workspace, name) for name in ("one", "other"))
    for key in ("model", "loss", "optimizer"):
        assert_equal(one[key], other[key], key)
    assert one["model"]["body.2.running_mean"].abs().sum() > 0


@pytest.mark.parametrize("when", [OFTEN, SELDOM])
def test_a_stop_saves_the_state_of_training(train, workspace, when):
    """The task has set a mode. `Stopped` says when the signal comes."""
    options = (*SHORT, "task._target_=.traces.Stopped", "model._target_=.traces.Momentum", when)
    assert train(*options, "name=whole").code == 0
    assert train(*options, "name=stopped", AT=when).code == 75
    assert train(*options, "name=stopped", "resume=auto").code == 0
    assert_equal(state_of(workspace, "stopped")["model"], state_of(workspace, "whole")["model"])


def test_a_task_that_cannot_be_copied(train, workspace):
    """The trial passes change the model itself. A warning says that hidden state is not looked for."""
    for name in ("Locked", "Classification"):
        done = train(*SHORT, f"task._target_=.traces.{name}", f"name={name.lower()}")
        assert done.code == 0, done.out
        assert ("hidden state is not looked for" in done.out) == (name == "Locked"), done.out
    assert_equal(state_of(workspace, "locked")["model"], state_of(workspace, "classification")["model"])


def test_tensors_that_cannot_be_written(train, workspace):
    assert train(*SHORT, "model._target_=.traces.Special").code == 0


def test_a_critic_that_the_task_trains(train, workspace):
    done = train(*SHORT, "task._target_=.traces.Critic")
    assert done.code == 0, done.out
    assert "no optimizer trains them" not in done.out


LISTS = """from .data.digits import Digits


class Lists(Digits):
    def split(self, name):
        return list(super().split(name))[:64]

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
"""


def test_a_list_has_no_place_for_state(train, workspace):
    (workspace / "digits/lists.py").write_text(LISTS)
    done = train(*SHORT, "data._target_=.lists.Lists")
    assert done.code == 2, done.out
    assert "Data with a state_dict need a Dataset as train, not a list." in done.last
    assert not (workspace / "runs").exists()


def test_processes_do_not_have_a_state_each(train_together, workspace):
    """Norms of a network in the task see other batches in each process."""
    done = train_together(*SHORT, "task._target_=.traces.Normalised")
    assert done.code == 2, done.out
    assert "A step changes state.task.norm.running_mean" in done.out
    assert not (workspace / "runs").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("task._target_=.traces.Forgetful", "The task cannot load the state that it saved. KeyError"),
        ("model._target_=.traces.Merging", "eval() changes the model's weight body.1.weight"),
        ("model._target_=.traces.Sparse", "The tensor graph is sparse."),
        ("task._target_=.traces.Shared", "in the task's head get a gradient"),
    ],
)
def test_refusals(train, workspace, override, words):
    done = train(*SHORT, override)
    assert done.code == 2, done.out
    assert words in done.last
    assert done.out.count("\n") == 1, done.out
    assert not (workspace / "runs").exists()


def test_a_hook_may_train_what_the_task_holds(train, workspace):
    done = train(*SHORT, "task._target_=.traces.Clamping")
    assert done.code == 0, done.out
    assert "no optimizer trains them." in done.out
    assert "Or train them in after_step." in done.out


def test_an_average_of_a_model_with_weight_norm(engine):
    model = torch.nn.utils.weight_norm(torch.nn.Linear(4, 4, bias=False))
    model(torch.ones(1, 4))
    averaged = engine("build.averaged").Averaged(model, 0.5)
    with torch.no_grad():
        model.weight_g.mul_(2)
    averaged.update(model)
    assert torch.allclose(averaged.model(torch.ones(1, 4)), model(torch.ones(1, 4)) * 0.75, atol=1e-6)
