"""Slurm's commands, pretended: enough for what is submitted, listed and cancelled here.

    python tests/frozen/pretended_slurm.py squeue -h -r -o '%i|%T'

What is in the queue lies in the file that PRETENDED_SLURM names: ``{"queue": [{"id": "4711_0",
"state": "RUNNING", ...}], "cancelled": []}``. Nothing ever runs.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

FIRST_JOB = 4711
CONFIG = "MaxArraySize            = 1001\nAccountingStorageEnforce = none\n"
PARTITIONS = (
    "PartitionName=main Default=YES State=UP MaxTime=1-00:00:00 MaxNodes=UNLIMITED"
    " AllowAccounts=ALL AllowQos=ALL QoS=N/A",
    "PartitionName=gpu-short Default=NO State=UP MaxTime=12:00:00 MaxNodes=UNLIMITED"
    " AllowAccounts=ALL AllowQos=ALL QoS=N/A",
    "PartitionName=old Default=NO State=DOWN MaxTime=UNLIMITED MaxNodes=UNLIMITED"
    " AllowAccounts=ALL AllowQos=ALL QoS=N/A",
)
NODES = tuple(
    f"NodeName=n{number} NodeAddr=127.0.0.1 CPUTot=16 RealMemory=64000 Gres=gpu:a100:4"
    " Partitions=main,gpu-short,old State=IDLE"
    for number in (1, 2)
)
FIELDS = {"i": "id", "T": "state", "r": "reason", "L": "time_left", "N": "node", "o": "script"}


def main(name: str, arguments: list[str]) -> int:
    """Answer one of Slurm's commands; return its exit status."""
    file = Path(os.environ["PRETENDED_SLURM"])
    before = file.read_text() if file.exists() else '{"queue": [], "cancelled": []}'
    fields = json.loads(before)
    answers = {"squeue": _squeue, "sbatch": _sbatch, "scancel": _scancel, "scontrol": _scontrol}
    if name not in answers:
        print(f"{name}: error: accounting is not there", file=sys.stderr)
        return 1
    print(answers[name](fields, arguments), end="")
    if fields != json.loads(before):  # whole or not at all: others may read it meanwhile
        written = file.with_suffix(f".{os.getpid()}")
        written.write_text(json.dumps(fields))
        written.replace(file)
    return 0


def _squeue(fields: dict[str, Any], arguments: list[str]) -> str:
    form = arguments[arguments.index("-o") + 1]
    wanted = arguments[arguments.index("-j") + 1].split(",") if "-j" in arguments else None
    rows = [row for row in fields["queue"] if wanted is None or _number(row["id"]) in wanted]
    return "".join(f"{_filled(form, row)}\n" for row in rows)


def _filled(form: str, row: dict[str, str]) -> str:
    def value(result: re.Match[str]) -> str:
        return _number(row["id"]) if result[1] == "F" else row.get(FIELDS.get(result[1], ""), "")

    return re.sub(r"%\d*([A-Za-z])", value, form)


def _sbatch(fields: dict[str, Any], arguments: list[str]) -> str:
    script = next(word for word in arguments if not word.startswith("-"))
    numbers = [int(_number(row["id"])) for row in fields["queue"]]
    job = max(numbers, default=FIRST_JOB - 1) + 1
    array = re.search(r"(?m)^#SBATCH --array=0-(\d+)", Path(script).read_text())
    tasks = [f"{job}_{index}" for index in range(int(array[1]) + 1)] if array else [str(job)]
    row = {"state": "PENDING", "reason": "Priority", "time_left": "10:00", "script": script}
    fields["queue"] += [{"id": task, **row} for task in tasks]
    return f"{job}\n" if "--parsable" in arguments else f"Submitted batch job {job}\n"


def _scancel(fields: dict[str, Any], arguments: list[str]) -> str:
    jobs = [word for word in arguments if not word.startswith("-")]
    fields["cancelled"] += jobs
    fields["queue"] = [
        row for row in fields["queue"] if not {row["id"], _number(row["id"])} & set(jobs)
    ]
    return ""


def _scontrol(fields: dict[str, Any], arguments: list[str]) -> str:
    what = " ".join(word for word in arguments if not word.startswith("-"))
    lines = {"show partition": PARTITIONS, "show node": NODES, "show config": (CONFIG.strip(),)}
    return "".join(f"{line}\n" for line in lines.get(what, ("Slurmctld(primary) is UP",)))


def _number(task: str) -> str:
    return task.partition("_")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
