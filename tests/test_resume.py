"""A run that is stopped, killed and resumed ends as the run that was never stopped."""

import json
import os
import shutil
import signal
import zipfile
from pathlib import Path

import pytest
from helpers import snippets
from helpers.runs import assert_stopped_as_whole, result, rows, the_run
from helpers.watching import add_watched_data

BASE = ("task._target_=.stopping.Stopping", "epochs=2", "logger=none", "log.every=6")


@pytest.fixture
def workspace(workspace):
    snippets.add(workspace, "digits/stopping.py")
    return workspace


def test_a_resume_reads_no_sample_that_it_does_not_train_on(train, workspace, tmp_path):
    add_watched_data(workspace)
    options = (*BASE, "data=watched", "model=mlp", "batch_size=10", "workers=0")
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    assert train(*options, "name=whole", READS=str(whole)).code == 0
    assert train(*options, "name=stopped", AT="13", WITH="SIGTERM", READS=str(tmp_path / "stopped")).code == 75
    assert train(*options, "name=stopped", "resume=auto", READS=str(rest)).code == 0
    every, left = whole.read_text().split(), rest.read_text().split()
    assert len(every) == 20 * 10
    assert left == every[14 * 10 :]


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


@pytest.mark.parametrize("options", [("save_every_steps=20", "val_every_epochs=0"), ("val_every_epochs=0",)])
def test_a_kill_before_the_last_validation(train, workspace, options):
    assert train(*BASE, *options, "name=whole").code == 0
    done = train(*BASE, *options, "name=stopped", AT="40", WITH="SIGKILL", PHASE="val")
    assert done.code == 137
    assert train(*BASE, *options, "name=stopped", "resume=auto").code == 0
    assert_stopped_as_whole(workspace)
    assert result(the_run(workspace, "stopped"))["best"] is not None


@pytest.mark.parametrize("minutes", ["0.0001"])
def test_a_time_limit_stops_and_resumes(train, workspace, minutes):
    assert train(*BASE, "name=whole").code == 0
    assert train(*BASE, "name=stopped", f"max_minutes={minutes}").code == 75
    assert train("name=stopped", f"resume={the_run(workspace, 'stopped')}", "max_minutes=null").code == 0
    assert_stopped_as_whole(workspace)


def test_a_time_limit_below_the_start_of_a_run_still_ends(train, workspace):
    """Each command does at least one step or one validation. So the documented loop ends."""
    options = (*BASE, "limit_train_batches=4", "epochs=1", "limit_val_batches=2")
    assert train(*options, "name=whole").code == 0
    codes = []
    while not codes or (codes[-1] == 75 and len(codes) < 20):
        codes.append(train(*options, "name=stopped", "resume=auto", "max_minutes=1e-9").code)
    assert codes == [75, 75, 75, 75, 0]
    assert_stopped_as_whole(workspace)


def test_train_yaml_may_change_meanwhile(train, workspace):
    assert train(*BASE, "name=whole").code == 0
    assert train(*BASE, "name=stopped", AT="13", WITH="SIGTERM").code == 75
    path = workspace / "configs/train.yaml"
    changed = path.read_text().replace("lr: 0.003", "lr: 0.5").replace("batch_size: 64", "batch_size: 8")
    changed = changed.replace("- model: cnn", "- model: mlp").replace("epochs: 20", "epochs: 1")
    path.write_text(changed.replace("seed: 0", "seed: 3"))
    assert train(f"resume={the_run(workspace, 'stopped')}").code == 0
    assert_stopped_as_whole(workspace)


def test_weights_to_start_from_may_be_gone(train, workspace):
    assert train(*BASE, "name=before").code == 0
    weights = workspace / "weights.pt"
    shutil.copy(the_run(workspace, "before") / "checkpoints/best.pt", weights)
    assert train(*BASE, "name=whole", f"init_from={weights}").code == 0
    assert train(*BASE, "name=stopped", f"init_from={weights}", AT="13", WITH="SIGTERM").code == 75
    weights.unlink()
    done = train(f"resume={the_run(workspace, 'stopped')}")
    assert done.code == 0, done.out
    assert_stopped_as_whole(workspace)


def test_changed_data_go_on_where_they_are_allowed(train, workspace, pictures):
    options = (*BASE, "data=image_folder", f"data.root={pictures}", "batch_size=16")
    assert train(*options, AT="4", WITH="SIGTERM").code == 75
    next(pictures.rglob("*.png")).unlink()
    folder = the_run(workspace)
    done = train(f"resume={folder}", "allow_changed_data=true")
    assert done.code == 0, done.out
    assert "no longer bit-exact: data " in done.out
    (resumed,) = json.loads((folder / "manifest.json").read_text())["resumed"]
    assert resumed["step"] == 5
    assert resumed["differences"][0].startswith("data ")


def test_two_at_once_with_resume_auto(start, train, workspace):
    first = start(*BASE, "resume=auto", AT="5", WITH="SIGSTOP")
    first.wait_for("training and")
    second = train(*BASE, "resume=auto")
    assert second.code == 2
    assert "in use by another process" in second.last
    first.send(signal.SIGCONT)
    assert first.result().code == 0
    assert result(the_run(workspace))["steps"] == 40


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(train, workspace):
    assert train(*BASE, "name=whole").code == 0
    assert train(*BASE, "name=stopped", "save_every_steps=5", AT="17", WITH="SIGKILL").code == 137
    folder = the_run(workspace, "stopped")
    newest = folder / "checkpoints/step-00000015.pt"
    flip_a_bit(newest)
    done = train(f"resume={folder}", "save_every_steps=5")
    assert done.code == 0
    assert "step-00000015.pt is damaged" in done.out
    assert_stopped_as_whole(workspace)


def test_no_whole_checkpoint_left(train, workspace):
    assert train(*BASE, "name=stopped", "save_every_steps=5", AT="17", WITH="SIGKILL").code == 137
    folder = the_run(workspace, "stopped")
    for path in (folder / "checkpoints").glob("*.pt"):
        path.write_bytes(b"")
    done = train(f"resume={folder}")
    assert done.code == 1
    assert "No checkpoint" in done.last
    assert "Traceback" not in done.out
    assert train(f"resume={folder}").code == 1, "not started anew either"


def flip_a_bit(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        info = max(archive.infolist(), key=lambda i: i.file_size)
    with open(path, "r+b") as file:
        file.seek(info.header_offset + 200 + info.file_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def test_a_checkpoint_is_plain_and_whole(train, workspace):
    import torch

    assert train(*BASE, "ema_decay=0.9").code == 0
    for path in (the_run(workspace) / "checkpoints").iterdir():
        state = torch.load(path, weights_only=True)
        keys = "format interface step epoch model ema optimizer scheduler scaler windows best pending config"
        assert state.keys() >= {*keys.split(), "fingerprint"}
        assert all(name in state["model"] for name in state["optimizer"])


def test_overrides_of_a_resumed_run(train, workspace):
    assert train(*BASE, "name=whole").code == 0
    assert train(*BASE, "name=stopped", AT="13", WITH="SIGTERM").code == 75
    folder = the_run(workspace, "stopped")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for bad in ("lr=0.1", "model.width=8", "batch_size=32", "seed=5", "epochs=1", "model=mlp"):
        done = train(f"resume={folder}", bad)
        assert done.code == 2, (bad, done.out)
        assert bad.split("=")[0].split(".")[0] in done.last
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    done = train(f"resume={folder}", "workers=1", "log.every=3", "val_every_steps=7", "save_every_steps=9", "epochs=2")
    assert done.code == 0, done.out
    whole, stopped = the_run(workspace, "whole"), the_run(workspace, "stopped")
    assert result(stopped)["weights_sha256"] == result(whole)["weights_sha256"]


def test_other_parameter_groups_than_the_run_began_with_are_refused(train, workspace):
    """As another release may make for a model, such as one layer more of `layer_decay`."""
    assert train(*BASE, "name=stopped", "optimizer.layer_decay=0.9", AT="13", WITH="SIGTERM").code == 75
    folder = the_run(workspace, "stopped")
    whole = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(whole.replace('"lr/all/head"', '"lr/all/last"'))
    done = train(f"resume={folder}")
    assert done.code == 2, done.out
    assert "The run has 7 parameter groups, but its config now makes others (7)" in done.last
    (folder / "metrics.jsonl").write_text(whole)
    assert train(f"resume={folder}").code == 0


def test_a_finished_run_can_be_made_longer(train, workspace):
    assert train(*BASE, "scheduler=constant", "name=whole", "epochs=3").code == 0
    assert train(*BASE, "scheduler=constant", "name=stopped").code == 0
    folder = the_run(workspace, "stopped")
    done = train(f"resume={folder}", "epochs=3")
    assert done.code == 0
    assert "epochs changed" in done.out
    assert_stopped_as_whole(workspace)


def test_resume_auto_takes_an_equal_run_only(train, workspace):
    assert train(*BASE, AT="13", WITH="SIGTERM").code == 75
    assert train(*BASE, "resume=auto", "lr=0.01").code == 0
    assert len([p for p in (workspace / "runs/default").iterdir() if p.name[0] != "."]) == 2


def test_two_processes_never_share_a_run(start, train, workspace):
    first = start(*BASE, AT="5", WITH="SIGSTOP")
    first.wait_for("training and")
    import time

    time.sleep(1)
    folder = the_run(workspace)
    second = train(f"resume={folder}")
    assert second.code == 2
    assert "in use by another process" in second.last
    first.send(signal.SIGCONT)
    assert first.result().code == 0


def test_a_second_signal_ends_at_once(start, workspace):
    run = start(*BASE, AT="5", WITH="SIGSTOP")
    run.wait_for("training and")
    import time

    time.sleep(1)
    run.send(signal.SIGTERM)
    run.send(signal.SIGINT)
    run.send(signal.SIGCONT)
    assert run.result().code in (128 + signal.SIGTERM, 128 + signal.SIGINT)


def test_changed_data_are_refused(train, workspace, pictures):
    options = (*BASE, "data=image_folder", f"data.root={pictures}", "batch_size=16")
    assert train(*options, AT="4", WITH="SIGTERM").code == 75
    next(pictures.rglob("*.png")).unlink()
    done = train(f"resume={the_run(workspace)}")
    assert done.code == 2
    assert "data have changed" in done.last


def test_damaged_files_of_a_run_are_named(train, workspace):
    assert train(*BASE, AT="13", WITH="SIGTERM").code == 75
    folder = the_run(workspace)
    (folder / "metrics.jsonl").write_bytes(b"\xff{broken\n" + (folder / "metrics.jsonl").read_bytes())
    for name in ("manifest.json", "config.yaml"):
        good = (folder / name).read_bytes()
        (folder / name).write_text("{broken: [")
        done = train(f"resume={folder}")
        assert done.code == 2, done.out
        assert name in done.last
        assert len(done.out.strip().splitlines()) == 1
        (folder / name).write_bytes(good)
    assert train(f"resume={folder}").code == 0


def test_a_checkpoint_of_a_newer_format_is_left_alone(train, workspace):
    import torch

    options = ("name=stopped", "save_every_steps=5", "keep_last=2")
    assert train(*BASE, *options, AT="17", WITH="SIGKILL").code == 137
    folder = the_run(workspace, "stopped")
    newest = folder / "checkpoints/step-00000015.pt"
    state = torch.load(newest, weights_only=True)
    torch.save({**state, "format": 99}, newest)
    del state["windows"]
    torch.save(state, folder / "checkpoints/step-00000010.pt")
    done = train(f"resume={folder}", "save_every_steps=1000", "save_every_epochs=0", "keep_last=5")
    assert done.code == 1, done.out
    assert "has format 99" in done.out
    assert "lacks 'windows'" in done.out
    assert newest.exists()


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


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_picture_is_named(train, workspace, pictures, workers):
    bad = pictures / "disc/7.png"
    bad.write_bytes(bad.read_bytes()[:-40])
    done = train("data=image_folder", f"data.root={pictures}", "batch_size=16", f"workers={workers}", "logger=none")
    assert done.code in (1, 2)
    assert str(bad) in done.last
    assert "Traceback" not in done.out


def test_a_reader_of_the_output_may_leave(workspace):
    import subprocess
    import sys

    command = f"{sys.executable} train.py epochs=2 logger=none | head -n 1"
    subprocess.run(["bash", "-c", command], cwd=workspace, check=True, stdout=subprocess.DEVNULL)
    assert result(the_run(workspace))["steps"] == 40
