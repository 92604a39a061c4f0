"""A run that is stopped, killed and resumed ends as the run that was never stopped."""

import json
import shutil
import signal
import time

import pytest
from helpers.runs import BASE, assert_stopped_as_whole, result, rows, the_run
from helpers.watching import add_watched_data


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_signals_save_and_exit_75(train, workspace, number):
    assert train(*BASE, "name=whole").code == 0
    stopped = train(*BASE, "name=stopped", AT="13", WITH=number)
    assert stopped.code == 75, stopped.out
    folder = the_run(workspace, "stopped")
    assert json.loads((folder / "manifest.json").read_text())["status"] == "stopped"
    assert f"resume=runs/stopped/{folder.name}" in stopped.last
    assert "Traceback" not in stopped.out
    assert train(f"resume=runs/stopped/{folder.name}").code == 0
    assert_stopped_as_whole(workspace)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_to_the_whole_process_group(train, workspace, pictures, number):
    """As a terminal's Ctrl-C or a cluster's stop sends it: to the loader workers too."""
    text = (workspace / "digits/stopping.py").read_text()
    text = text.replace("os.kill(os.getpid(), ", "os.killpg(os.getpgid(0), ")
    (workspace / "digits/stopping.py").write_text("import os\nos.setpgid(0, 0)\n" + text)
    options = (*BASE, "data=image_folder", f"data.root={pictures}", "batch_size=16", "workers=2")
    assert train(*options, "name=whole").code == 0
    stopped = train(*options, "name=stopped", AT="2", WITH=number)
    assert stopped.code == 75, stopped.out
    assert train(*options, "name=stopped", "resume=auto").code == 0
    assert_stopped_as_whole(workspace)


def test_a_second_signal_ends_at_once(start, workspace):
    run = start(*BASE, AT="5", WITH="SIGSTOP")
    run.wait_for("training and")
    time.sleep(1)
    run.send(signal.SIGTERM)
    run.send(signal.SIGINT)
    run.send(signal.SIGCONT)
    assert run.result().code in (128 + signal.SIGTERM, 128 + signal.SIGINT)


def test_a_stop_in_validation_is_made_up_for(train, workspace):
    assert train(*BASE, "name=whole").code == 0
    assert train(*BASE, "name=stopped", AT="20", WITH="SIGTERM", PHASE="val").code == 75
    folder = the_run(workspace, "stopped")
    assert not any("val/acc" in row for row in rows(folder))
    assert train(f"resume={folder}").code == 0
    assert_stopped_as_whole(workspace)


@pytest.mark.parametrize("options", [(), ("accumulate=4", "ema_decay=0.95", "clip_grad_norm=0.5", "drop_last=false")])
def test_kills_at_many_steps(train, workspace, options):
    options = (*BASE, *options, "save_every_steps=3", "model.dropout=0.3")
    assert train(*options, "name=whole").code == 0
    for number, at in enumerate((0, 1, 7, 19, 20, 33, 38)):
        done = train(*options, "name=stopped", "resume=auto", AT=str(at), WITH="SIGKILL", workers=str(number % 3))
        assert done.code == 137
    assert train(*options, "name=stopped", "resume=auto").code == 0
    assert_stopped_as_whole(workspace)


@pytest.mark.parametrize("options", [("save_every_steps=20", "val_every_epochs=0"), ("val_every_epochs=0",)])
def test_a_kill_before_the_last_validation(train, workspace, options):
    assert train(*BASE, *options, "name=whole").code == 0
    done = train(*BASE, *options, "name=stopped", AT="40", WITH="SIGKILL", PHASE="val")
    assert done.code == 137
    assert train(*BASE, *options, "name=stopped", "resume=auto").code == 0
    assert_stopped_as_whole(workspace)
    assert result(the_run(workspace, "stopped"))["best"] is not None


def test_the_documented_loop(workspace, server, train):
    """Goes on after 75 alone: `while python train.py resume=auto; [ $? -eq 75 ]; do :; done`."""
    assert train(*BASE, "name=whole").code == 0
    codes = []
    for at in ("3", "25", "39", ""):
        codes.append(train(*BASE, "name=stopped", "resume=auto", AT=at, WITH="SIGTERM").code)
    assert codes == [75, 75, 75, 0]
    assert_stopped_as_whole(workspace)
    again = train(*BASE, "name=stopped", "resume=auto")
    assert again.code == 0
    assert "finished" in again.out
    assert_stopped_as_whole(workspace)


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_loader_workers_change_nothing(train, workspace, workers, pictures):
    options = (*BASE, "data=image_folder", f"data.root={pictures}", "data.flip=true", "batch_size=16")
    assert train(*options, "name=whole", "workers=0").code == 0
    for at in ("2", "9"):
        assert train(*options, "name=stopped", "resume=auto", f"workers={workers}", AT=at, WITH="SIGKILL").code == 137
    assert train(*options, "name=stopped", "resume=auto", f"workers={workers}").code == 0
    assert_stopped_as_whole(workspace)


def test_a_resume_reads_no_sample_that_it_does_not_train_on(train, workspace, tmp_path):
    add_watched_data(workspace)
    options = (*BASE, "data=watched", "model=mlp", "batch_size=10", "workers=0")
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    assert train(*options, "name=whole", READS=str(whole)).code == 0
    assert train(*options, "name=stopped", AT="13", WITH="SIGTERM", READS=str(tmp_path / "stopped")).code == 75
    assert train(*options, "name=stopped", "resume=auto", READS=str(rest)).code == 0
    every, left = whole.read_text().split(), rest.read_text().split()
    first, every = every[:12], every[12:]
    assert first == [*every[:10], every[0], every[0]], "a new run looks at its first batch, and at a sample twice"
    assert len(every) == 20 * 10
    assert left == every[14 * 10 :]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_resumes_exactly(train, workspace):
    """After an incomplete last batch, kernels must not depend on the shapes seen before."""
    options = ("compile=true", "drop_last=false", "scheduler=constant", "model=mlp", "epochs=3", "logger=none")
    done = train(*options, "name=whole")
    assert done.code == 0, done.out
    assert train(*options, "name=stopped", "max_steps=30").code == 0
    assert train(*options, "name=stopped", "resume=auto").code == 0
    assert (
        result(the_run(workspace, "stopped"))["weights_sha256"] == result(the_run(workspace, "whole"))["weights_sha256"]
    )
