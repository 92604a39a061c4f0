"""Runs on several hosts: a host that is lost, and hosts that do not share their files."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
from helpers import hosts, snippets
from helpers.launched import TASK, wait_for_step
from helpers.runs import result, the_run

SMALL = ("model=mlp", "model.hidden=[8]", "logger=none", "log.curves=false", "workers=0")


@pytest.mark.skipif(not hosts.CAN_START, reason="needs root and iproute2")
def test_all_processes_end_when_a_host_is_lost(train, workspace, tmp_path):
    snippets.add(workspace, "digits/launched.py")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLLECTIVE_TIMEOUT": "5", "NOTES": str(tmp_path)}
    env |= {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_PORT": "29400"}
    command = [sys.executable, "train.py", *SMALL, "save_every_steps=4", "max_steps=90", TASK, "task.ends=slow"]
    with hosts.two_hosts() as names:
        logs = [tmp_path / f"{name}.log" for name in names]
        places = [{"RANK": str(rank), "MASTER_ADDR": names[0]} for rank in range(2)]
        starts = zip(names, places, logs, strict=True)
        both = [hosts.start(name, command, workspace, env | place, log) for name, place, log in starts]

        def said() -> str:
            return "\n".join(log.read_text(errors="replace") for log in logs)

        wait_for_step(tmp_path, 40, said)
        hosts.cut()
        assert [process.wait(timeout=60) for process in both] == [1, 1], said()
    assert all(log.read_text().count("did not answer within 5 seconds") == 1 for log in logs), said()
    run = the_run(workspace)
    done = train(f"resume={run}")
    assert done.code == 0, done.out
    assert result(run)["steps"] == 90


def test_hosts_that_do_not_share_files_are_refused(server, workspace, tmp_path):
    other = shutil.copytree(workspace, tmp_path / "other")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
    }
    both = [server.start(f / "train.py", *SMALL, **env, RANK=str(n)) for n, f in enumerate((workspace, other))]
    results = [command.result() for command in both]
    assert [done.code for done in results] == [2, 2], results
    assert "".join(done.out for done in results).count("\n") == 1, results
    assert f"The host {socket.gethostname()} does not see runs/ of" in results[0].out
    assert not any((f / "runs").exists() for f in (workspace, other))
    both = [server.start(workspace / "train.py", *SMALL, "max_steps=2", **env, RANK=str(n)) for n in range(2)]
    assert [command.result().code for command in both] == [0, 0]


@pytest.mark.skipif("RESTARTS" not in os.environ, reason="takes a minute: RESTARTS=1")
def test_torchrun_restarts_a_run_whose_process_is_killed(train_together, workspace):
    (workspace / "digits/dying.py").write_text(
        "import os, signal\nfrom .task import Classification\n\nclass Dying(Classification):\n"
        "    def training_step(self, model, batch, ctx):\n"
        "        at = {'0': 12, '1': 23}.get(os.environ.get('TORCHELASTIC_RESTART_COUNT'))\n"
        "        if os.environ['RANK'] == '1' and ctx.training and ctx.step == at:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().training_step(model, batch, ctx)\n"
    )
    options = (*SMALL, "save_every_steps=5", "max_steps=40", "resume=auto")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3"]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    dying = [*command, "train.py", *options, "task._target_=.dying.Dying", "name=restarted"]
    done = subprocess.run(dying, cwd=workspace, env=env, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert train_together(*options, "name=whole").code == 0
    assert result(the_run(workspace, "restarted")) == result(the_run(workspace, "whole"))
    manifest = json.loads((the_run(workspace, "restarted") / "manifest.json").read_text())
    assert [resumed["step"] for resumed in manifest["resumed"]] == [10, 20]
