"""The target that Slurm's commands print."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from mlmodeldev.errors import UsageError
from tests.fuzz.mutation import (
    WORDS,
    spoiled_bytes,
    spoiled_text,
)
from tests.fuzz.target import Target, assert_line, may_refuse

OUTPUTS = {
    "squeue": "1201_0|RUNNING|None|1-02:03:04|node[1-2]\n1201_1|PENDING|Resources|5:00|\n1300|COMPLETING|None|0:00|n3\n",
    "squeue -F": "1201|/runs/.jobs/a/tasks-0.sh\n1300|/x y/b.sh\n",
    "scontrol job": "JobId=1201 ArrayJobId=1201 JobName=odd JobState=RUNNING Reason=None ExitCode=0:0 RunTime=00:01:02\n",
    "scontrol config": "Configuration data as of 2026-01-01\nClusterName             = lab\nMaxArraySize            = 1001\nAccountingStorageEnforce = limits,safe\n"
                       "SchedulerParameters     = bf_interval=2,max_array_tasks=25\n",
    "scontrol partition": "PartitionName=gpu AllowAccounts=ALL AllowQos=ALL Default=YES MaxTime=1-00:00:00 State=UP QoS=N/A "
                          "MaxMemPerCPU=4000 MaxMemPerNode=UNLIMITED JobDefaults=DefMemPerGPU=8000\n"
                          "PartitionName=cpu Default=NO AllowAccounts=a,b MaxTime=UNLIMITED State=DOWN QoS=big\n",
    "scontrol node": "NodeName=n1 CPUTot=64 CPUEfctv=60 RealMemory=129000 MemSpecLimit=1000 NodeAddr=10.0.0.1 "
                     "Gres=gpu:3090:4(S:0-1),gpu:3g.20gb:2(S:0,1) Partitions=gpu,cpu ActiveFeatures=a,b\n",
    "sacctmgr": "normal|DenyOnLimit|100||20|30|cpu=40,gres/gpu=4|gres/gpu=2|1-00:00:00|\n"
                "big|OverPartQOS,PartitionTimeLimit||50||||gres/gpu=8||2.000000\n",
    "sacctmgr assoc": "lab||normal|normal,big|50|10|gres/gpu=4|2-00:00:00\nlab|gpu||big|||gres/gpu=1|\n",
    "sacct": "1201_0|OUT_OF_MEMORY|0:125|2G|\n1201_0.batch|OUT_OF_MEMORY|0:125||1992294K\n1300|CANCELLED by 0|0:0|4Gn|\n",
    "sbatch": "Welcome to the cluster, job 12 of 4\n15786755;main\n",
    "refusal": "sbatch: error: Batch job submission failed: Invalid account\nsbatch: error: more\n",
}  # fmt: skip
_TOKENS = (
    *WORDS,
    *(
        "|",
        "||",
        "=",
        "==",
        "1201_0",
        "1201",
        "1201_[3-5%2]",
        "1-1-1",
        "::",
        "UNLIMITED",
        "NOT_SET",
        "(null)",
    ),
    *(
        "gpu:",
        "gpu:a100",
        "gpu:a100:x",
        "gpu:4:4:4",
        "N/A",
        "PartitionName=",
        "NodeName=",
        "JobState=",
        "-1",
    ),
    *(
        "4294967294",
        "99-99:99:99",
        "365-00:00:00",
        "1.5G",
        "1..5K",
        "0:0",
        "RUNNING",
        "CANCELLED by",
        "; ; ;",
    ),
    *(
        "slurm_load_jobs error: Unable to contact slurm controller",
        "max_array_tasks=0",
        "MaxArraySize = x",
    ),
)


def make_output(rng: Random) -> tuple[str, dict[str, str], int]:
    """Return what is asked, the commands' outputs, one or all spoilt, and their exit status."""
    question = rng.choice(("queue", "job", "limits", "ends", "number", "time"))
    texts = dict(OUTPUTS)
    names = [name for name in texts if name.startswith(_WHOSE[question])]
    for name in names if rng.random() < 0.2 else [rng.choice(names)]:
        if rng.random() < 0.8:
            texts[name] = spoiled_text(rng, texts[name], _TOKENS)
        else:
            texts[name] = spoiled_bytes(rng, texts[name].encode()).decode("utf-8", "replace")
    texts = {name: text.replace("\ud800", "?") for name, text in texts.items()}
    return question, texts, rng.choice((0, 0, 0, 0, 0, 0, 1, 127))


_WHOSE = {"queue": "squeue", "job": "scontrol job", "limits": ("scontrol", "sacctmgr"), "ends": "sacct",
          "number": ("sbatch", "refusal"), "time": "squeue"}  # fmt: skip


def answering(texts: dict[str, str], status: int) -> Any:
    """Return a stand-in for subprocess.run that answers as Slurm's commands."""

    def run(command: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in command]
        name = words[0]
        if name == "squeue" and "%F|%o" in " ".join(words):
            name = "squeue -F"
        elif name == "scontrol":
            name = next(
                (key for key in texts if key.startswith("scontrol") and key.split()[1] in words), ""
            )
        elif name == "sacctmgr" and "assoc" in words:
            name = "sacctmgr assoc"
        text = texts.get(name, "")
        return subprocess.CompletedProcess(
            command, status, "" if status else text, text if status else ""
        )

    return run


def check_output(given: tuple[str, dict[str, str], int], folder: Path) -> None:
    """Slurm's words are read, or taken for no answer; never for another number or time."""
    from mlmodeldev.settings.schema import Cluster
    from mlmodeldev.slurm import job_ends, limits, query, submit

    question, texts, status = given
    with (
        mock.patch("mlmodeldev.slurm.query.subprocess.run", answering(texts, status)),
        may_refuse(),
    ):
        if question == "queue":
            for task, queued in query.read_queue().items():
                lines = [
                    each for each in texts["squeue"].splitlines() if each.split("|")[0] == task
                ]
                assert any(queued.node in line for line in lines)
            query.queued_scripts()
        elif question == "job":
            fields = query.show_job("1201", tries=1)
            assert not fields or fields["JobState"] in texts["scontrol job"]
        elif question == "limits":
            read = limits.read_limits(Cluster(partition="gpu,cpu"))
            assert read.max_array >= 1
            assert all(node.gpus >= 0 and node.cpus >= 0 for node in read.nodes)
        elif question == "ends":
            for job, end in job_ends.read_job_ends(["1201_0", "1300"]).items():
                assert len(end.sentence(job).splitlines()) == 1
                assert end.state in texts["sacct"] + texts["scontrol job"]
                assert 0 <= end.used < float("inf")
        elif question == "number":
            number, _ = submit.job_and_cluster(texts["sbatch"])
            assert number == "" or number in texts["sbatch"]
            assert number.isascii()
            assert_line(str(UsageError(submit.refusal(texts["refusal"], ""))))
        else:
            for text in re.split(r"[|\n]", texts["squeue"]):
                _check_time(text, query.seconds_of(text))


def _check_time(text: str, seconds: int | None) -> None:
    """Compare with sacct(1): [DD-[HH:]]MM:SS, written anew."""
    match = re.fullmatch(
        r"(?:(\d{1,6})-(\d{1,9})(?::(\d{1,9}))?(?::(\d{1,9}))?|(?:(\d{1,9}):)?(\d{1,9}):(\d{1,9}))",
        text,
        re.ASCII,
    )
    if match is None:
        return
    d, h, m, s, hours, minutes, rest = (int(each or 0) for each in match.groups())
    wanted = ((d * 24 + h) * 60 + m) * 60 + s if match[1] else (hours * 60 + minutes) * 60 + rest
    assert seconds == wanted, (text, seconds, wanted)


TARGETS = [
    Target(
        "Slurm's outputs",
        (
            "mlmodeldev.slurm.query",
            "mlmodeldev.slurm.limits",
            "mlmodeldev.slurm.accounting",
            "mlmodeldev.slurm.job_ends",
        ),
        make_output,
        check_output,
        fills=False,
    ),
]
