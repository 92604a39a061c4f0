"""Values that a run's files cannot hold are named, or the checkpoint before is taken."""

import json
import shutil

import pytest
import torch
from helpers.runs import the_run

QUICK = ("model=mlp", "model.hidden=[8]", "max_steps=4", "logger=none", "log.curves=false", "workers=0")


@pytest.fixture
def stopped(train, workspace):
    """A run of which the checkpoint of step 2 is the newest, and that of step 1 is there too."""
    assert train(*QUICK, "save_every_steps=1", "keep_last=null").code == 0
    run = the_run(workspace)
    for path in (run / "checkpoints").glob("*.pt"):
        if path.name not in ("step-00000001.pt", "step-00000002.pt"):
            path.unlink()
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "status": "stopped", "result": None}))
    return run


def edited(run, change) -> None:
    path = run / "checkpoints/step-00000002.pt"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["windows"]["train"]["acc"].pop(),
        lambda state: state["windows"]["train_epoch"].update(loss=[1.0, 2.0, 3.0]),
        lambda state: state["windows"]["train"].update(loss=[1.0, "2"]),
    ],
)
def test_a_sum_that_is_no_pair_makes_a_checkpoint_unusable(train, stopped, change):
    edited(stopped, change)
    done = train(f"resume={stopped}")
    assert done.code == 0, done.out
    assert "step-00000002.pt" in done.out
    assert "from step 1" in done.out


def test_a_fingerprint_of_another_kind_is_a_difference(train, stopped):
    edited(stopped, lambda state: state["fingerprint"].update(versions="new", device={"a": "b"}))
    done = train(f"resume={stopped}")
    assert done.code == 0, done.out
    assert "Traceback" not in done.out


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["optimizer"]["layers.1.bias"].pop("exp_avg"),
        lambda state: state["optimizer"]["layers.1.bias"].update(exp_avg=1.0),
        lambda state: state["optimizer_values"]["param_groups"]["all"].update(eps={}),
        lambda state: state["optimizer"]["layers.1.bias"].update(step="x"),
    ],
)
def test_an_optimizer_that_cannot_go_on_says_so(train, stopped, change):
    edited(stopped, change)
    done = train(f"resume={stopped}")
    assert done.code in (1, 2), done.out
    assert "Traceback" not in done.out
    assert "Delete the newest checkpoint to go on from the one before." in done.last
    (stopped / "checkpoints/step-00000002.pt").unlink()
    assert train(f"resume={stopped}").code == 0


@pytest.mark.parametrize("odd", ['"x"', "[1]", '{"a": 1}'])
def test_a_logged_value_that_is_no_number_is_named(train, server, workspace, stopped, odd):
    twin = shutil.copytree(stopped, stopped.with_name("twin"))
    path = twin / "metrics.jsonl"
    lines = path.read_text().splitlines()
    row = json.loads(lines[1])
    lines[1] = json.dumps({**row, "train/loss": json.loads(odd)})
    path.write_text("\n".join(lines) + "\n")
    compared = server.run(workspace / "digits/__main__.py", "compare", str(twin), cwd=workspace)
    for done in (compared, train(f"resume={twin}")):
        assert done.code in (1, 2), done.out
        assert "metrics.jsonl, line 2: train/loss is " in done.last
        assert "Delete the line." in done.last
