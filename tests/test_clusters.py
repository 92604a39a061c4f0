"""Runs that Slurm starts, and variables of a cluster that have nothing to do with a command."""

import json
import os
import subprocess
import sys
import time

import pytest
from helpers import slurm, snippets
from helpers.launched import TASK, wait_for_step
from helpers.runs import result, rows, the_run

SMALL = ("model=mlp", "model.hidden=[8]", "max_steps=4", "logger=none", "log.curves=false", "workers=0")
LEFT_OVER = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}


def test_verbs_ignore_variables_that_a_shell_has_kept(server, workspace):
    assert server.run(workspace / "train.py", *SMALL, "name=one").code == 0
    run = the_run(workspace, "one")
    values = []
    for env in ({}, LEFT_OVER, {**LEFT_OVER, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}):
        done = server.run(workspace / "digits/__main__.py", "evaluate", str(run), cwd=workspace, **env)
        assert done.code == 0, done.out
        values.append(json.loads((run / "evaluate-val.json").read_text()))
    assert values[0] == values[1] == values[2]
    assert values[0]["values"]["val/loss"] == rows(run)[-1]["val/loss"]


def test_find_lr_ignores_them_too(server, workspace):
    done = server.run(workspace / "find_lr.py", "model=mlp", "find_lr.steps=60", **LEFT_OVER)
    assert done.code == 0, done.out


def test_no_process_waits_for_others_that_nothing_started(server, workspace):
    for env in ({"WORLD_SIZE": "2"}, LEFT_OVER):
        done = server.run(workspace / "train.py", *SMALL, "name=none", **env)
        assert (done.code, done.out.count("\n")) == (2, 1), done.out
        assert f"WORLD_SIZE={env['WORLD_SIZE']}" in done.out
        assert "unset" in done.out
    assert not (workspace / "runs/none").exists()


def test_commands_of_one_process_refuse_torchrun(server, workspace):
    env = {**LEFT_OVER, "TORCHELASTIC_RUN_ID": "none"}
    for command in (("digits/__main__.py", "evaluate", "runs/x/y"), ("find_lr.py", "model=mlp")):
        done = server.run(workspace / command[0], *command[1:], cwd=workspace, **env)
        assert (done.code, done.out.count("\n")) == (2, 1), done.out
        assert "without torchrun" in done.out


STEP = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "6", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[07-09],big1", "gpu07"),
        ("big1,gpu[1-2]", "big1"),
        ("n-1[3,5-6]", "n-13"),
        ("host", "host"),
        ("a.b,c", "a.b"),
    ],
)
def test_places_in_a_step_of_slurm(engine, nodes, first):
    env = {**STEP, "SLURM_STEP_NODELIST": nodes, "SLURM_JOB_ID": "1234567", "SLURM_STEP_TASKS_PER_NODE": "2(x3)"}
    engine("machine.distributed")._take_from_slurm(env)
    places = {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": first}
    assert {name: env[name] for name in places} == places
    assert 1024 < int(env["MASTER_PORT"]) < 65536


@pytest.mark.parametrize("more", [{"SLURM_STEP_NUM_TASKS": "1"}, {"RANK": "0"}])
def test_a_step_of_one_task_or_of_torchrun_stays_as_it_is(engine, more):
    env = {**STEP, "SLURM_STEP_NODELIST": "host", "SLURM_JOB_ID": "1", **more}
    before = dict(env)
    engine("machine.distributed")._take_from_slurm(env)
    assert env == before


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The variables with which commands of Slurm reach a cluster of one node."""
    if not slurm.CAN_START:
        pytest.skip("needs root and Slurm's programs (munge, slurm-wlm)")
    with slurm.running(tmp_path_factory.mktemp("cluster") / "slurm") as env:
        quiet = {k: v for k, v in env.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        yield quiet | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable}


def test_srun_starts_one_run_on_several_processes(cluster, workspace):
    command = ["srun", "-n2", "--overcommit", sys.executable, "train.py", *SMALL, "name=together"]
    done = subprocess.run(command, cwd=workspace, env=cluster, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(os.listdir(workspace / "runs/together")) == 1
    manifest = json.loads((the_run(workspace, "together") / "manifest.json").read_text())
    assert manifest["fingerprint"]["world_size"] == 2
    verb = [sys.executable, "-m", "digits", "evaluate", str(the_run(workspace, "together"))]
    assert subprocess.run(["srun", "-n1", *verb], cwd=workspace, env=cluster).returncode == 0


STOPS = {
    # As --signal sends it, because limits of Slurm have whole minutes.
    "time limit": ("scancel", "--signal=USR1"),
    "preemption": ("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"),
}


@pytest.fixture
def ask(cluster, workspace, tmp_path):
    """`ask(*command)`: what a command prints. Its jobs note their steps in `tmp_path`."""
    snippets.add(workspace, "digits/launched.py")
    env = {**cluster, "NOTES": str(tmp_path)}
    return lambda *command: subprocess.check_output(command, cwd=workspace, env=env, text=True)


def start_waiting_jobs(ask) -> None:
    """Start the jobs that were queued again at once: Slurm itself would wait two minutes."""
    for job in ask("squeue", "--noheader", "--array", "--states=PENDING", "--format=%i").split():
        ask("scontrol", "update", f"JobId={job}", "StartTime=now")


@pytest.mark.parametrize("why", STOPS)
def test_slurm_sh_stops_in_time_and_goes_on(ask, train, workspace, tmp_path, why):
    options = (*SMALL, "max_steps=8", TASK, "task.ends=wait")

    def said() -> str:
        return "".join(path.read_text() for path in workspace.glob("slurm-*.log"))

    place = ("--gpus-per-task=0", "--cpus-per-task=1")
    job = ask("sbatch", "--parsable", *place, "slurm.sh", *options, "name=stopped").strip()
    wait_for_step(tmp_path, 5, said)
    ask(*STOPS[why], *([job] if why == "time limit" else []))
    deadline = time.monotonic() + 100
    while "JobState=COMPLETED" not in (state := ask("scontrol", "show", "job", job)):
        assert time.monotonic() < deadline, state + said()
        if "Restarts=1" in state:
            start_waiting_jobs(ask)
        time.sleep(0.2)
    assert "Restarts=1" in state
    (resumed,) = json.loads((the_run(workspace, "stopped") / "manifest.json").read_text())["resumed"]
    assert resumed["step"] == 6
    assert train(*SMALL, "max_steps=8", "name=whole", OMP_NUM_THREADS="1").code == 0
    assert result(the_run(workspace, "stopped")) == result(the_run(workspace, "whole"))


def test_submitit_queues_a_stopped_job_of_slurm_again(ask, cluster, workspace, tmp_path):
    options = ("hydra.launcher.partition=all", "hydra.launcher.cpus_per_task=1", *SMALL, "max_steps=8", TASK)
    command = [sys.executable, "train.py", "-m", "hydra/launcher=submitit_slurm", *options, "task.ends=again,ok"]
    env, log = {**cluster, "NOTES": str(tmp_path)}, tmp_path / "log.txt"
    with open(log, "w") as out, subprocess.Popen(command, cwd=workspace, env=env, stdout=out, stderr=out) as sweep:
        deadline = time.monotonic() + 200
        while sweep.poll() is None:
            if time.monotonic() > deadline:
                sweep.kill()
            start_waiting_jobs(ask)
            time.sleep(0.5)
    assert sweep.returncode == 0, log.read_text()
    runs = [path.parent for path in workspace.glob("runs/default/*/manifest.json")]
    told = [json.loads((run / "manifest.json").read_text()) for run in runs]
    assert sorted(len(manifest.get("resumed", [])) for manifest in told) == [0, 1]
    assert len({manifest["result"]["weights_sha256"] for manifest in told}) == 1
    assert [manifest["resumed"][0]["step"] for manifest in told if "resumed" in manifest] == [6]
