"""`test=true`: at its end a run evaluates its best checkpoint on the test split."""

import json

import pytest
from helpers.runs import result, rows, the_run

RUN = ("test=true", "epochs=2", "model=mlp", "lr=0.02", "workers=0", "logger=none")


@pytest.mark.parametrize("more", [[], ["ema_decay=0.9"]], ids=["plain", "averaged"])
def test_the_values_are_those_of_evaluate(train, workspace, server, more):
    done = train(*RUN, *more)
    assert done.code == 0, done.out
    run = the_run(workspace)
    tested = json.loads((run / "manifest.json").read_text())["test"]
    evaluated = server.run(workspace / "digits/__main__.py", "evaluate", str(run), "--split", "test", cwd=workspace)
    assert evaluated.code == 0, evaluated.out
    expected = json.loads((run / "evaluate-test.json").read_text())
    assert tested == {"checkpoint": "best.pt", "step": expected["step"], "values": expected["values"]}
    last = rows(run)[-1]
    assert {tag: value for tag, value in last.items() if tag.startswith("test/")} == expected["values"]
    assert f"best.pt of step {expected['step']} on the test split: test/loss" in done.out


def test_the_result_is_that_of_the_run_without_a_test(train, workspace):
    """Also if the best checkpoint is not the last one."""
    for name, more in (("whole", RUN), ("untested", RUN[1:])):
        assert train(*more, f"name={name}", "lr=0.3", "optimizer=sgd").code == 0
    assert result(the_run(workspace, "whole")) == result(the_run(workspace, "untested"))


def test_data_without_a_test_split_are_refused_before_the_run(train, workspace):
    data = workspace / "digits/data/digits.py"
    text = data.read_text()
    assert "def split(self, name: str)" in text
    data.write_text(
        text + "\n\nclass Untested(Digits):\n    def split(self, name):\n"
        "        return None if name == 'test' else super().split(name)\n"
    )
    done = train(*RUN, "data._target_=.data.digits.Untested")
    assert done.code == 2, done.out
    assert done.last == ".data.digits.Untested has no test split. Leave test=true out."
    assert not (workspace / "runs").exists()


def test_a_resumed_run_that_was_stopped_before_its_test_does_it(train, workspace):
    assert train(*RUN[1:]).code == 0
    run = the_run(workspace)
    path = run / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "status": "running", "result": None}))  # as a kill leaves it
    done = train("resume=auto", *RUN)
    assert done.code == 0, done.out
    assert json.loads(path.read_text())["test"]["values"]["test/acc"] > 0.5
    assert result(run) == manifest["result"]


def test_an_empty_test_split_is_refused_before_the_run(train, workspace):
    data = workspace / "digits/data/digits.py"
    data.write_text(
        data.read_text() + "\n\nclass Empty(Digits):\n    def split(self, name):\n"
        "        from torch.utils.data import Subset\n"
        "        found = super().split(name)\n"
        "        return Subset(found, []) if name == 'test' else found\n"
    )
    done = train(*RUN, "data._target_=.data.digits.Empty")
    assert done.code == 2, done.out
    assert "test split" in done.last
    assert not (workspace / "runs/default").exists()
