"""A Slurm cluster of one node on this machine. It needs root, munge and slurm-wlm."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

MISSING = [name for name in ("munged", "slurmctld", "slurmd", "srun") if shutil.which(name) is None]
"""The programs that Slurm needs and this machine lacks."""
CAN_START = os.name == "posix" and os.geteuid() == 0 and not MISSING

CONFIG = """
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={socket}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
"""
NODE = """
SlurmctldPort={control}
SlurmdPort={daemon}
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
JobRequeue=1
MpiDefault=none
SchedulerParameters=batch_sched_delay=0,sched_interval=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} CPUs=4 RealMemory=2000 State=UNKNOWN
"""
PARTITIONS = """
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES GraceTime=60
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=2
"""
"""Jobs of the partition `urgent` preempt those of `all`, which get SIGTERM, and SIGKILL a minute later."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _daemon(command: list[str], folder: Path, env: dict[str, str] | None = None) -> Iterator[None]:
    """Run a daemon in the foreground with its output in `folder`; end it at the end."""
    with open(folder / f"{command[0]}.out", "w") as out:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """Start Slurm with its files in `folder`; yield the variables that its commands need.

    Munge is started too, with a key and a socket of its own: what a munge daemon of the machine, alive or
    dead, left behind is neither used nor touched.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    # A socket's path has at most 107 bytes, which a test's folder can exceed.
    with tempfile.TemporaryDirectory() as munge, ExitStack() as daemons:
        os.chmod(munge, 0o755)
        key = Path(munge, "key")
        key.touch(0o600)
        key.write_bytes(os.urandom(1024))
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={munge}/{name}" for option, name in files.items()]
        names = {"host": socket.gethostname().split(".")[0], "folder": folder, "socket": f"{munge}/socket"}
        names |= {"control": _free_port(), "daemon": _free_port()}
        config = folder / "slurm.conf"
        config.write_text((CONFIG + NODE + PARTITIONS).format(**names))
        env = {**os.environ, "SLURM_CONF": str(config)}
        daemons.enter_context(_daemon(["munged", "--foreground", "--force", *options], folder))
        _wait_for(["munge", "--no-input", f"--socket={munge}/socket"], "MUNGE", None)
        daemons.enter_context(_daemon(["slurmctld", "-D"], folder, env))
        daemons.enter_context(_daemon(["slurmd", "-D"], folder, env))
        _wait_for(["sinfo", "--noheader", "--format=%T"], "idle", env)
        yield env
        # Each job's slurmstepd has a socket here. It tells slurmctld that the job has ended, and tries for ever.
        subprocess.run(["scancel", "--user=root"], env=env, check=True, timeout=10)
        _wait_for(["find", f"{folder}/spool", "-type", "s"], "^$", env)


def _wait_for(command: list[str], answer: str, env: dict[str, str] | None) -> None:
    """Ask until the pattern `answer` is in the answer, for at most a minute."""
    end, said = time.monotonic() + 60, ""
    while time.monotonic() < end:
        try:
            done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=10)
        except subprocess.TimeoutExpired:
            continue
        said = done.stdout + done.stderr
        if re.search(answer, said):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{command[0]} did not answer {answer!r} within a minute: {said}")
