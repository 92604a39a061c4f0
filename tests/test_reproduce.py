"""`python -m PACKAGE reproduce RUN`: users check the promise on their own run."""

import json

import pytest
from helpers.runs import result, the_run


@pytest.fixture
def reproduce(server, workspace):
    return lambda *arguments: server.run(workspace / "digits/__main__.py", "reproduce", *map(str, arguments))


BASE = ("epochs=2", "limit_train_batches=8", "log.every=3", "logger=none")


def again(workspace, name="default"):
    (folder,) = (workspace / "runs" / name / "reproduced").iterdir()
    return folder


def test_killed_and_stopped_on_the_way(train, reproduce, workspace):
    assert train(*BASE, "ema_decay=0.9", "model.dropout=0.2", "save_every_steps=4").code == 0
    folder = the_run(workspace)
    done = reproduce(folder, "--stop-at", "5,11", "--workers", "1")
    assert done.code == 0, done.out
    assert done.last.startswith("identical: 16 steps")
    assert result(again(workspace)) == result(folder)
    resumed = json.loads((again(workspace) / "manifest.json").read_text())["resumed"]
    start, killed, stopped = [entry["step"] for entry in resumed]
    assert (start, stopped) == (0, 11), "it was not stopped at 11"
    assert killed in (0, 4), "it was not killed at 5, as it saved step 4 or just after"


def test_the_first_difference_is_named(train, reproduce, workspace):
    assert train(*BASE).code == 0
    folder = the_run(workspace)
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    changed = json.loads(rows[2])
    changed["train/loss"] += 1e-12
    rows[2] = json.dumps(changed)
    (folder / "metrics.jsonl").write_text("\n".join(rows))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["fingerprint"]["versions"]["torch"] = "1.0"
    manifest["resumed"] = [{"step": 3, "extended": {"epochs": 2}, "differences": ["threads 4 → 2"]}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    done = reproduce(folder)
    assert done.code == 1
    assert f"different: first at step {changed['step']} in train/loss: {changed['train/loss']!r}" in done.out
    for reason in ("torch 1.0 → ", "with epochs=2", "with threads 4 → 2"):
        assert reason in done.out
    assert "Traceback" not in done.out


def test_changed_code_is_found_out(train, reproduce, workspace):
    assert train(*BASE, "log.every=1000").code == 0
    losses = workspace / "digits/task.py"
    losses.write_text(losses.read_text().replace('"loss": ', '"loss": 1.0001 * '))
    assert "1.0001" in losses.read_text()
    done = reproduce(the_run(workspace))
    assert done.code == 1
    assert "different: first at step 8" in done.out


def test_weights_alone_that_differ(train, reproduce, workspace):
    assert train(*BASE).code == 0
    folder = the_run(workspace)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["result"]["weights_sha256"] = "0"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    done = reproduce(folder)
    assert done.code == 1
    assert "weights_sha256 at the end: 0, and again" in done.out


def test_other_data_are_refused_before_training(train, reproduce, workspace):
    assert train("epochs=1", "limit_train_batches=2", "logger=none").code == 0
    folder = the_run(workspace)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["fingerprint"]["data"] = "other"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    done = reproduce(folder)
    assert done.code == 1
    assert "The data differ from those of the run. Bring the old ones back" in done.out
    assert not list((again(workspace) / "checkpoints").glob("*"))


def test_mistakes(train, reproduce, workspace):
    assert train(*BASE).code == 0
    folder = the_run(workspace)
    for arguments, words in (
        ((folder, "--stop-at", "16"), "Name steps from 1 to 15"),
        ((folder, "--stop-at", "3,x"), "'x' is not a whole number"),
        ((workspace / "nothing",), "Name a run folder"),
    ):
        done = reproduce(*arguments)
        assert done.code == 2
        assert words in done.last
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "status": "stopped"}))
    done = reproduce(folder)
    assert done.code == 2
    assert "is not finished but stopped" in done.last
    assert not (workspace / "runs/default/reproduced").exists()


def test_a_run_of_two_processes(reproduce, train_together, workspace):
    assert train_together(*BASE, "model=mlp", "accumulate=2").code == 0
    late = reproduce(the_run(workspace), "--stop-at", "2,15")
    assert late.code == 2
    assert "--stop-at 15 is outside the run. Name steps from 1 to 14." in late.last
    done = reproduce(the_run(workspace), "--stop-at", "2,4")
    assert done.code == 0, done.out
    assert "identical" in done.last
    manifest = json.loads((again(workspace) / "manifest.json").read_text())
    assert manifest["resumed"][-1]["step"] == 5, "processes hear a stop one step later"
    assert manifest["fingerprint"]["world_size"] == 2
