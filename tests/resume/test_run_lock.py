"""Two processes never write one run folder."""

import signal
import time

from helpers.runs import BASE, result, the_run


def test_two_at_once_with_resume_auto(start, train, workspace):
    first = start(*BASE, "resume=auto", AT="5", WITH="SIGSTOP")
    first.wait_for("training and")
    second = train(*BASE, "resume=auto")
    assert second.code == 2
    assert "in use by another process" in second.last
    first.send(signal.SIGCONT)
    assert first.result().code == 0
    assert result(the_run(workspace))["steps"] == 40


def test_two_processes_never_share_a_run(start, train, workspace):
    first = start(*BASE, AT="5", WITH="SIGSTOP")
    first.wait_for("training and")
    time.sleep(1)
    folder = the_run(workspace)
    second = train(f"resume={folder}")
    assert second.code == 2
    assert "in use by another process" in second.last
    first.send(signal.SIGCONT)
    assert first.result().code == 0
