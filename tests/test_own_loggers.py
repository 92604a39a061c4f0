"""A logger that an owner wrote, and runs without any."""

import pytest
from helpers.runs import rows, the_run

OWN = '''
from .engine.api import Logger

class Lines(Logger):
    """As somebody wrote it for an older engine."""
    def __init__(self, folder):
        self.file = open(folder / "lines.txt", "w")

    def scalars(self, step, values):
        self.file.write(f"{step} {sorted(values)}\\n")
'''


def test_a_logger_that_takes_scalars_alone(train, workspace):
    (workspace / "digits/lines.py").write_text(OWN)
    task = (workspace / "digits/task.py").read_text()
    broken = task.replace("def images(", "def images(self, *_): 1 / 0\n\n    def unused(")
    (workspace / "digits/task.py").write_text(broken)
    (workspace / "configs/logger/lines.yaml").write_text("lines:\n  _target_: .lines.Lines\n")
    done = train("epochs=1", "logger=lines", "log.histograms=1")
    assert done.code == 0, done.out
    assert "No pictures" not in done.out, "what no logger takes is not computed"
    assert (the_run(workspace) / "lines.txt").read_text().count("\n") == len(rows(the_run(workspace)))


@pytest.mark.parametrize("choice", ["none", "[]", "[none]"])
def test_no_logger(train, workspace, choice):
    done = train("epochs=1", f"logger={choice}")
    assert done.code == 0, done.out
    assert not (the_run(workspace) / "tensorboard").exists()
