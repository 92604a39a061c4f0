"""Several processes train what one does, and end together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import snippets
from helpers.runs import result, rows, the_run
from helpers.watching import BASE, DATA, SHORT, TASK, assert_equal


def torchrun(workspace: Path, *overrides: str, processes: int = 2, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    settings = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    settings |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **env}
    return subprocess.run(
        [*command, "train.py", *overrides], cwd=workspace, env=settings, text=True, capture_output=True, timeout=300
    )


GROUP_NORM = """
from torch import nn

class Normed(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(shape[0], 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, classes))

    def forward(self, x):
        return self.layers(x)
"""


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.cuda
def test_two_gpus_train(workspace):
    done = torchrun(workspace, "epochs=2", "logger=none", "sync_batchnorm=true", CUDA_VISIBLE_DEVICES="0,1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(the_run(workspace))["steps"] == 40


def test_two_processes_train_what_one_does(train, train_together, workspace):
    (workspace / "digits/models/normed.py").write_text(GROUP_NORM)
    (workspace / "configs/model/normed.yaml").write_text("_target_: .models.normed.Normed\n")
    options = ("model=normed", "epochs=2", "logger=none", "optimizer=sgd", "log.every=7")
    done = train_together(*options, "name=two", "accumulate=2", "drop_last=false", "batch_size=100")
    assert done.code == 0, done.out
    done = train(*options, "name=one", "accumulate=4", "drop_last=false", "batch_size=100")
    assert done.code == 0, done.out
    one, two = the_run(workspace, "one"), the_run(workspace, "two")
    weights = [torch.load(f / "checkpoints/step-00000026.pt", weights_only=True)["model"] for f in (one, two)]
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-6)
    for a, b in zip(rows(one), rows(two), strict=True):
        assert a.keys() == b.keys()
        for key in a:
            if not key.startswith("time/"):
                assert a[key] == pytest.approx(b[key], rel=1e-3, abs=1e-6), key
    assert json.loads((two / "manifest.json").read_text())["fingerprint"]["world_size"] == 2


def test_a_mistake_is_told_where_other_processes_never_come(server, workspace):
    script, env = workspace / "train.py", {"RANK": "0", "WORLD_SIZE": "2"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    waiting = server.start(script, "lrr=1", **env, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    waiting.wait_for("Did you mean")
    time.sleep(0.5)
    waiting.send(signal.SIGINT)
    assert waiting.result().code == 128 + signal.SIGINT


def test_a_task_that_exits_ends_two_processes(train_together, workspace):
    (workspace / "digits/leaving.py").write_text(
        "import sys\nfrom .task import Classification\n\n"
        "class Leaving(Classification):\n    def training_step(self, model, batch, ctx):\n"
        "        return sys.exit(0) if ctx.step == 2 else super().training_step(model, batch, ctx)\n"
    )
    done = train_together("task._target_=.leaving.Leaving", "model=mlp", "logger=none")
    assert done.code == 0, done.out
    assert "Traceback" not in done.out


def test_a_run_of_two_processes_stops_and_goes_on_with_one(train, workspace):
    (workspace / "digits/stopping.py").write_text(
        "import os, signal\nfrom .task import Classification\n\nclass Stopping(Classification):\n"
        "    def training_step(self, model, batch, ctx):\n"
        "        if os.environ.get('RANK') == '1' and ctx.step == 3:\n"
        "            import warnings\n            warnings.warn('heard from afar')\n"
        "        if os.environ.get('RANK') == '1' and ctx.step == 23:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "        return super().training_step(model, batch, ctx)\n"
    )
    options = ("task._target_=.stopping.Stopping", "epochs=2", "logger=none")
    done = torchrun(workspace, *options)
    assert done.returncode == 1
    folder = the_run(workspace)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "stopped", done.stdout + done.stderr
    (line,) = [line for line in (folder / "train.log").read_text().splitlines() if "heard from afar" in line]
    assert "rank 1" in line
    done = train(f"resume={folder}")
    assert done.code == 0, done.out
    assert "world_size 2 → 1" in done.out
    assert result(folder)["steps"] == 40
    assert [row["step"] for row in rows(folder) if "val/acc" in row] == [20, 40]


SPARE = """
from torch import nn
from ..engine.models.mlp import MLP

class Spare(MLP):
    def __init__(self, shape, classes):
        super().__init__(shape, classes, [8])
        self.spare = nn.Linear(3, 3)
"""


def test_a_parameter_without_use(train, train_together, workspace):
    (workspace / "digits/models/spare.py").write_text(SPARE)
    (workspace / "configs/model/spare.yaml").write_text("_target_: .models.spare.Spare\n")
    options = ("model=spare", "logger=none", "max_steps=4")
    done = train_together(*options)
    assert done.code == 2, done.out
    assert "The first training batch does not use spare.bias, spare.weight." in done.last
    assert done.out.count("\n") == 1, done.out
    assert not (workspace / "runs").exists()
    assert train(*options, "max_minutes=0.00001").code == 75
    done = train_together(f"resume={the_run(workspace)}", "max_minutes=null")
    assert done.code == 2, done.out
    assert "spare.weight" in done.last


def test_a_changed_number_of_processes_is_said_once(train, train_together, workspace):
    options = ("model=mlp", "logger=none", "max_steps=4")
    assert train(*options, "max_minutes=0.00001").code == 75
    run = the_run(workspace)
    assert train_together(f"resume={run}", "max_minutes=null", "max_steps=6").code == 0
    text = (run / "train.log").read_text()
    assert text.count("no longer bit-exact: world_size 1 → 2") == text.count("the longer run") == 1


def test_every_process_says_that_it_has_no_gpu(train_together, workspace):
    done = train_together("model=mlp", "device=cuda", CUDA_VISIBLE_DEVICES="")
    assert done.code == 2, done.out
    assert done.out.count("has 0 usable GPUs for 2 processes") == 2
    assert done.out.count("\n") == 2
    assert not (workspace / "runs").exists()


def test_two_processes_end_where_there_is_nothing_left_to_do(train_together):
    done = train_together("model=mlp", "max_steps=2", "logger=none", "name=two")
    assert done.code == 0
    again = train_together("model=mlp", "max_steps=2", "logger=none", "name=two", "resume=auto")
    assert again.code == 0
    assert "Nothing is left to do" in again.out


def test_a_mistake_under_torchrun_is_said_once(train_together, workspace):
    done = torchrun(workspace, "lrr=1")
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("Did you mean 'lr'?") == 1
    assert "Unable to shutdown" not in done.stderr, "no process waits for one that has ended"
    done = train_together("--help")
    assert done.code == 0
    assert done.out.count("batch_size=") == 1
    done = train_together("batch_size=33")
    assert done.code == 2
    assert done.out.count("batch_size=33") == 1
    assert "multiple of 2" in done.out
    done = train_together("sync_batchnorm=true")
    assert done.code == 2
    assert done.out.count("works on GPUs only") == 1
    assert not (workspace / "runs").exists()


def test_all_processes_validate_with_the_same_running_statistics(train_together, server, workspace):
    """Those of the checkpoint, so that one process finds the same values."""
    done = train_together("model=cnn", "model.width=4", "max_steps=5", "logger=none", "limit_val_batches=2")
    assert done.code == 0, done.out
    run = the_run(workspace)
    done = server.run(workspace / "digits/__main__.py", "evaluate", str(run), "--checkpoint", "last", cwd=workspace)
    assert done.code == 0, done.out
    found = json.loads((run / "evaluate-val.json").read_text())["values"]
    logged = next(row for row in rows(run) if "val/loss" in row)
    assert logged["val/loss"] == pytest.approx(found["val/loss"], rel=1e-6)


def test_all_processes_use_the_same_buffers_of_a_loss(train_together, workspace):
    """Those of the main process, as after a resume: so a stopped run goes on bit for bit."""
    snippets.add(workspace, "digits/watched.py", "digits/centred.py")
    options = (*BASE, "loss=.centred.Centred")
    for name, stops in (("whole", ()), ("stopped", ("3", "7"))):
        env = {"BATCHES": str(workspace / f"{name}.batches"), "WITH": "SIGTERM", "SLEEP": "0.03"}
        for at in (*stops, ""):
            done = train_together(*options, f"name={name}", "resume=auto", AT=at, **env)
            assert done.code == (75 if at else 0), done.out
    assert_equal(the_run(workspace, "whole"), the_run(workspace, "stopped"))


def test_three_processes_go_on_bit_for_bit(server, workspace):
    """They add a gradient in an order that depends on its place among others, which must be that of the first start."""
    snippets.add(workspace, "digits/watched.py", "digits/models/blocks.py")
    (workspace / "configs/model/blocks.yaml").write_text("_target_: .models.blocks.Blocks\n")
    options = (*TASK, *SHORT, *DATA, "model=blocks", "model.width=300", "batch_size=24", "max_steps=6", "log.every=1")
    for name, at in (("whole", ""), ("stopped", "2"), ("stopped", "")):
        env = {"BATCHES": str(workspace / f"{name}.batches"), "WITH": "SIGTERM", "AT": at, "SLEEP": "0.03"}
        given = (*options, f"name={name}", "resume=auto")
        done = server.run_together(workspace / "train.py", *given, processes=3, **env)
        assert done.code == (75 if at else 0), done.out
    assert_equal(the_run(workspace, "whole"), the_run(workspace, "stopped"))
