"""Every parameter is trained, and every tensor keeps its shape, or the run is refused."""

import pytest
from helpers import snippets
from helpers.runs import the_run


@pytest.fixture
def workspace(workspace):
    snippets.add(workspace, "digits/changing.py")
    (workspace / "configs/model/changing.yaml").write_text("_target_: ???\n")
    return workspace


def options(name: str) -> tuple[str, ...]:
    return ("model=changing", f"model._target_=.changing.{name}", "logger=none", "epochs=1", "log.curves=false")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Makes", "does not train the parameter scale:"),
        ("Replaces", "does not train the parameter head.weight and 3 more:"),
        ("Unfreezes", "does not train the parameter other.weight and 1 more:"),
        ("Grows", "tensor memory changes its shape in training ((2, 3) → ("),
        ("Registers", "tensor late changes its shape in training (absent → (3,))"),
    ],
)
def test_a_model_that_changes_is_refused(train, workspace, name, words):
    done = train(*options(name))
    assert done.code == 2, done.out
    assert words in done.last
    assert len(done.out.strip().splitlines()) == 1
    assert not (workspace / "runs").exists()


def test_buffers_may_change_their_values(train, workspace):
    assert train(*options("Still")).code == 0


def test_a_parameter_that_loading_replaces(train, workspace, stopping):
    """Without the search for hidden state, which finds it before the run."""
    at_load = (*stopping, *options("ReplacesAtLoad")[:2], "deterministic=false")
    assert train(*at_load, "name=stopped", AT="7", WITH="SIGTERM").code == 75
    done = train("name=stopped", f"resume={the_run(workspace, 'stopped')}")
    assert done.code == 2, done.out
    assert "does not train the parameter head.weight" in done.last


def test_a_parameter_that_is_unfrozen_during_the_run(train, workspace):
    """The next save names it. The checkpoints before it stay."""
    done = train(*options("UnfreezesLater"), "save_every_steps=10")
    assert done.code == 1, done.out
    assert "does not train the parameter other.weight and 1 more:" in done.last
    assert "trains(ctx)" in done.last
    assert [path.name for path in (the_run(workspace) / "checkpoints").iterdir()] == ["step-00000010.pt"]
