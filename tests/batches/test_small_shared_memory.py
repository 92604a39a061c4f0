"""Loader workers where shared memory is small, as in Docker, and where few files may be open."""

import os
import shutil
import subprocess
import sys

import pytest
from helpers.runs import result, the_run

OPTIONS = ("data=image_folder", "data.size=64", "data.channels=3", "model=mlp", "epochs=2", "batch_size=16")
OPTIONS = (*OPTIONS, "logger=none", "log.curves=false", "device=cpu")


def can_mount():
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=1m none /dev/shm"]
    return shutil.which("unshare") and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount")
def test_batches_come_through_a_pipe(train, workspace, pictures):
    """16 pictures of 48 KiB do not fit three times into one MiB."""
    options = (*OPTIONS, f"data.root='{pictures}'")
    assert train(*options, "name=large", "workers=2").code == 0
    command = " ".join(
        ["exec", f"'{sys.executable}'", "train.py", *(f'"{o}"' for o in options), "name=small", "workers=2"]
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs -o size=1m none /dev/shm && {command}"],
        cwd=workspace,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("/dev/shm has") == 1, done.stdout
    assert result(the_run(workspace, "small")) == result(the_run(workspace, "large"))


@pytest.mark.parametrize(("soft", "hard", "code"), [(40, 4096, 0), (24, 24, 1)])
def test_few_open_files(workspace, pictures, soft, hard, code):
    """The limit is raised as far as the machine allows. Below it, one sentence names the cure."""
    command = f"ulimit -Sn {soft} && ulimit -Hn {hard} && exec '{sys.executable}' train.py"
    arguments = " ".join(f'"{option}"' for option in (*OPTIONS, f"data.root='{pictures}'", "workers=4"))
    done = subprocess.run(
        ["sh", "-c", f"{command} {arguments}"], cwd=workspace, capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    if code:
        assert "ulimit -n" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stdout + done.stderr
