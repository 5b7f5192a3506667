"""A SLURM of one node on this machine, without root and without systemd. A folder comes in; the environment that reaches it, out.

munged, slurmctld and slurmd run as the user who asks, keep everything in the folder, listen on 127.0.0.1, and end with the
context. There is no accounting: `squeue` says what became of a job.
"""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
SECONDS = 60  # until a node that does not come up is given up

CONF = """\
ClusterName=one
SlurmctldHost=localhost(127.0.0.1)
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
SwitchType=switch/none
MinJobAge=600
KillWait=5
ReturnToService=2
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cores} RealMemory=4000 State=UNKNOWN
PartitionName=here Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def missing_daemons() -> list[str]:
    """Those of :data:`DAEMONS` that this machine lacks."""
    return [name for name in DAEMONS if shutil.which(name, path=SBIN) is None]


@contextmanager
def slurm_node(folder: Path, cores: int = 2) -> Iterator[dict[str, str]]:
    """A node called localhost with one partition, `here`, of ``cores`` cores, whatever the machine has.

    Raises RuntimeError with the ends of the daemons' logs where it does not come up.
    """
    folder.mkdir(mode=0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf, key = folder / "slurm.conf", folder / "munge.key"
    conf.write_text(CONF.format(folder=folder, user=getpass.getuser(), ports=_free_ports(2), cores=cores))
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    # The plugin for Snakemake takes SLURM_CONF out of the environment before it calls srun
    (folder / "bin").mkdir()
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={shlex.quote(str(conf))} exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": os.pathsep.join([str(srun.parent), SBIN])}
    commands = (
        ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
        + [f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"],
        ["slurmctld", "-D", "-f", str(conf)],
        ["slurmd", "-D", "-N", "localhost", "-f", str(conf)],
    )
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with open(folder / f"{command[0]}.said", "wb") as said:
                started.append(subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT))
            _until(started, folder, lambda: (folder / "munge.socket").exists())
        _until(started, folder, lambda: _said(["sinfo", "--noheader", "-o", "%t"], environment).strip() == "idle")
        yield environment
    finally:
        _said(["scancel", "--user", getpass.getuser()], environment)
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _until(started: Sequence[subprocess.Popen[bytes]], folder: Path, ready) -> None:
    deadline = time.monotonic() + SECONDS
    while not ready():
        if time.monotonic() > deadline or any(process.poll() is not None for process in started):
            logs = sorted([*folder.glob("*.log"), *folder.glob("*.said")])
            raise RuntimeError("\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in logs))
        time.sleep(0.1)


def _said(command: Sequence[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    return done.stdout


def _free_ports(number: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports
