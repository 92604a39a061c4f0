"""A Slurm cluster of one node on this machine. It needs root, munge and slurm-wlm."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start_munge() -> None:
    key = Path("/etc/munge/munge.key")
    if not key.exists():
        key.write_bytes(os.urandom(1024))
    for folder in ("/run/munge", "/var/log/munge", "/var/lib/munge", "/etc/munge"):
        Path(folder).mkdir(exist_ok=True)
        subprocess.run(["chown", "-R", "munge:", folder], check=True)
    os.chmod(key, 0o400)
    os.chmod("/run/munge", 0o755)
    subprocess.run(["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged"], check=True)


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """Start Slurm with its files in `folder`; yield the variables that its commands need."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    if not Path("/run/munge/munge.socket.2").exists():
        _start_munge()
    names = {"host": socket.gethostname().split(".")[0], "folder": folder}
    names |= {"control": _free_port(), "daemon": _free_port()}
    config = folder / "slurm.conf"
    config.write_text((CONFIG + NODE).format(**names))
    env = {**os.environ, "SLURM_CONF": str(config)}
    try:
        for daemon in ("slurmctld", "slurmd"):
            subprocess.run([daemon], env=env, check=True, capture_output=True)
        for _ in range(200):
            if "idle" in subprocess.run(["sinfo", "-h", "-o", "%T"], env=env, text=True, capture_output=True).stdout:
                break
            time.sleep(0.1)
        yield env
    finally:
        for daemon in ("slurmd", "slurmctld"):
            if (folder / f"{daemon}.pid").exists():
                os.kill(int((folder / f"{daemon}.pid").read_text()), 15)
