"""The state dict of a task and of data: in checkpoints, or refused before a run."""

import pytest
import torch
from helpers.runs import result, the_run

SMALL = ("logger=none", "model=mlp", "model.hidden=[8]", "max_steps=6", "epochs=6", "task._target_=.mine.Mine")
HEAD = "import os\nimport signal\nimport threading\n\nimport numpy as np\n\nfrom .task import Classification\n\n\n"
COUNTING = """class Mine(Classification):
    calls = 0

    def training_step(self, model, batch, ctx):
        self.calls += 1
        values = super().training_step(model, batch, ctx)
        return {**values, "loss": values["loss"] / (1 + 0.1 * self.calls)}

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]
"""


def write(workspace, code):
    (workspace / "digits/mine.py").write_text(HEAD + code)


def of(workspace, name="default"):
    path = max((the_run(workspace, name) / "checkpoints").glob("step-*.pt"))
    return path, torch.load(path, weights_only=True)


def test_a_checkpoint_counts_steps_and_no_checks(train, server, workspace):
    """A validation calls `training_step` too. Its calls do not count."""
    write(workspace, COUNTING)
    assert train(*SMALL).code == 0
    state = of(workspace)[1]
    assert state["task"] == {"calls": 6}
    assert "data" not in state
    code = 'class Mine(Classification):\n    """None."""\n'
    write(workspace, code)
    assert train(*SMALL, "name=plain").code == 0
    assert "task" not in of(workspace, "plain")[1]


def test_a_stop_in_a_validation_repeats_it_from_the_state_before_it(train, workspace):
    """Steps read what validations count. The stop comes in the third batch of the first validation."""
    code = COUNTING.replace(
        "        self.calls += 1\n", "        self.calls += 1\n        slow(self.calls, ctx.step)\n"
    )
    slow = "def slow(calls, step):\n    if step == 2 and os.environ.get('AT') == str(calls):\n"
    write(workspace, slow + "        os.kill(os.getpid(), signal.SIGTERM)\n\n\n" + code)
    base = (*SMALL, "val_every_steps=2")
    assert train(*base, "name=whole").code == 0
    assert train(*base, "name=stopped", AT="5").code == 75
    assert of(workspace, "stopped")[1]["task"] == {"calls": 2}
    assert train(*base, "name=stopped", "resume=auto").code == 0
    assert result(the_run(workspace, "stopped")) == result(the_run(workspace, "whole"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("def load_state_dict", "def load"), "Mine needs both `state_dict` and `load_state_dict`, or neither."),
        (('"calls": self.calls}', '"calls": np.zeros(2)}'), "does not fit into a checkpoint"),
        (('"calls": self.calls}', '"calls": threading.Lock()}'), "does not fit into a checkpoint"),
    ],
    ids=["one method", "numpy", "lock"],
)
def test_a_state_that_no_checkpoint_can_hold(train, workspace, change, words):
    write(workspace, COUNTING.replace(*change))
    done = train(*SMALL)
    assert done.code == 2, done.out
    assert words in done.last
    assert len(done.out.strip().splitlines()) == 1
    assert not (workspace / "runs").exists()


def test_several_processes(train_together, workspace):
    write(workspace, COUNTING)
    done = train_together(*SMALL)
    assert done.code == 2, done.out
    assert "Mine has a `state_dict`. Such a run is limited to one process." in done.out
    assert not (workspace / "runs").exists()


def test_a_checkpoint_of_earlier_code_lacks_it(train, workspace):
    write(workspace, COUNTING)
    assert train(*SMALL, "max_minutes=0.00001").code == 75
    path, state = of(workspace)
    del state["task"]
    torch.save(state, path)
    done = train(*SMALL, "resume=auto", "max_minutes=null")
    assert done.code == 0, done.out
    assert "The checkpoint holds no state of the task. It stays as built." in done.out
