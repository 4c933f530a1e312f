"""The files that describe a test cluster: slurm.conf, gres.conf, slurmdbd.conf.

Example::

    write(Layout(folder=Path("/tmp/x"), ports=ports, nodes=4))
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ports:
    """Where the daemons listen, on 127.0.0.1."""

    slurmctld: int
    slurmdbd: int
    mariadbd: int
    slurmd: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """What a test cluster pretends to be.

    Attributes:
        folder: holds everything: configuration, state, logs.
        nodes: number of nodes, n1, n2, ...
        cpus, memory, gpus: of each node; more than the machine has is fine. Memory in MiB.
        grace: seconds between preemption's warning and its SIGTERM (partition ``main``).
        accounting: with slurmdbd, so that sacct works.
        user_signal: whether preemption sends a job its own ``--signal``; Slurm's default is no.
        max_array: MaxArraySize; indices are below it.
        extra: more lines of slurm.conf.
    """

    folder: Path
    ports: Ports
    nodes: int = 4
    cpus: int = 4
    memory: int = 4000
    gpus: int = 2
    grace: int = 10
    accounting: bool = True
    user_signal: bool = False
    max_array: int = 1001
    extra: str = ""

    @property
    def names(self) -> list[str]:
        """Names of the nodes."""
        return [f"n{number}" for number in range(1, self.nodes + 1)]

    @property
    def conf(self) -> Path:
        """The path of slurm.conf."""
        return self.folder / "etc" / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        """Where munged answers."""
        return self.folder / "munge" / "munge.socket"


def write(layout: Layout) -> None:
    """Write the configuration files."""
    layout.conf.write_text(_slurm(layout))
    devices = f"{layout.folder}/dev/nvidia[0-{layout.gpus - 1}]"
    (layout.conf.with_name("gres.conf")).write_text(
        f"NodeName=n[1-{layout.nodes}] Name=gpu File={devices}\n" if layout.gpus else ""
    )
    if layout.accounting:
        file = layout.conf.with_name("slurmdbd.conf")
        file.touch(mode=0o600)  # slurmdbd refuses a file that others can read
        file.write_text(_slurmdbd(layout))


def _slurm(layout: Layout) -> str:
    folder, ports = layout.folder, layout.ports
    # cred_expire is also how long a requeued job must wait before it may start again;
    # below 5 it counts as the default, 120
    return f"""\
ClusterName=test
SlurmctldHost={socket.gethostname()}(127.0.0.1)
SlurmctldPort={ports.slurmctld}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={layout.munge_socket},cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
# loopback only
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
# no cgroups
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5
MpiDefault=none
MailProg=/bin/true
# believe this file about CPUs and memory, not the machine
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=256
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,bf_resolution=1,sched_interval=5,batch_sched_delay=1
MaxArraySize={layout.max_array}
MaxJobCount=50000
MinJobAge=600
# quick failures
ReturnToService=2
SlurmdTimeout=10
KillWait=30
MessageTimeout=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{"SlurmctldParameters=preempt_send_user_signal" if layout.user_signal else ""}
JobCompType=jobcomp/none
{_accounting(layout)}
{_nodes(layout)}
PartitionName=main Nodes=ALL Default=YES State=UP PriorityTier=1 GraceTime={layout.grace}
PartitionName=nograce Nodes=ALL State=UP PriorityTier=1 GraceTime=0
PartitionName=short Nodes=n1 State=UP PriorityTier=1 MaxTime=5
PartitionName=high Nodes=ALL State=UP PriorityTier=10 PreemptMode=OFF
{layout.extra}
"""


def _accounting(layout: Layout) -> str:
    if not layout.accounting:
        return "AccountingStorageType=accounting_storage/none"
    # towards slurmdbd the munge socket is not AuthInfo's but this "password"
    return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={layout.ports.slurmdbd}
AccountingStoragePass={layout.munge_socket}
AccountingStorageTRES=gres/gpu"""


def _nodes(layout: Layout) -> str:
    gres = f" Gres=gpu:{layout.gpus}" if layout.gpus else ""
    return "\n".join(
        f"NodeName={name} NodeAddr=127.0.0.1 Port={port} CPUs={layout.cpus}"
        f" RealMemory={layout.memory}{gres}"
        for name, port in zip(layout.names, layout.ports.slurmd, strict=True)
    )


def _slurmdbd(layout: Layout) -> str:
    folder, ports = layout.folder, layout.ports
    return f"""\
AuthType=auth/munge
AuthInfo=socket={layout.munge_socket}
CommunicationParameters=NoInAddrAny
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports.slurmdbd}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports.mariadbd}
StorageUser=root
StorageLoc=slurm_acct_db
PidFile={folder}/run/slurmdbd.pid
LogFile={folder}/log/slurmdbd.log
DebugLevel=info
"""
