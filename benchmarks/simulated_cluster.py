"""A sweep of any size as files alone, and a Slurm of scripts that answers about its jobs.

    python -m benchmarks.simulated_cluster FOLDER WORD...     # a command there, and what it took

Nothing trains: the trials' folders are written, a quarter of them done or failed, so many running
and so many waiting, with the submission that would have made them; ``squeue`` prints a file. What a
command does to the file system is counted call by call: opened, looked at, listed, made, renamed or
removed. On a parallel file system each is a question to a server.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
METRIC = "val/accuracy"
EPOCHS = 10
ARRAY = 1000
"""Tasks of one array: Slurm's MaxArraySize is 1001 by default."""
VARIANTS = 64
"""Logs that differ; each is the file of many trials, by hard links."""
_FORMER = 1_700_000_000.0

SWEEP = """\
name: scale
method: {method}
run_cap: {count}
metric: {{name: val/accuracy, goal: maximize}}
parameters:
  optimizer.lr: {{distribution: q_uniform, min: 0.00001, max: {most:.5f}, q: 0.00001}}
  optimizer.weight_decay: {{min: 0, max: 9}}
"""
STUBS = {
    "sbatch": ('n=$(($(cat "$HERE/number") + 1)); echo $n >"$HERE/number"', "echo $n"),
    "squeue": ('cat "$HERE/queue"',),
    "scancel": ("exit 0",),
    "sacct": ('cat "$HERE/ends"',),
    "sacctmgr": ("exit 1",),
    "scontrol": (
        'case "$*" in',
        '  *config*) echo "MaxArraySize = 1001" ;;',
        '  *partition*) echo "PartitionName=all Default=YES State=UP MaxTime=UNLIMITED" ;;',
        '  *node*) echo "NodeName=n1 Partitions=all CPUTot=64 RealMemory=256000 Gres=gpu:8" ;;',
        "esac",
    ),
}


@dataclass
class Counts:
    """Calls to the file system, by what they do.

    Attributes:
        kinds: how many of each.
        paths: how often each path was asked about.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    paths: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """All of them."""
        return self.kinds.total()

    def add(self, kind: str, path: Any) -> None:
        """Count a call."""
        self.kinds[kind] += 1
        if isinstance(path, (str, os.PathLike)):
            self.paths[os.fspath(path)] += 1


_CALLS = (
    *("stat", "lstat", "scandir", "listdir", "mkdir", "rename", "replace", "unlink", "remove"),
    *("rmdir", "link", "symlink", "chmod", "utime", "open"),
)


@contextlib.contextmanager
def counted_calls(folder: Path) -> Iterator[Counts]:
    """Count the calls within that ask about a folder or what lies below it."""
    import io

    counts, prefix = Counts(), str(folder)

    def counting(kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(prefix):
                counts.add(kind, path)
            return call(path, *args, **kwargs)

        return counted

    with contextlib.ExitStack() as stack:
        for name in _CALLS:
            stack.enter_context(mock.patch.object(os, name, counting(name, getattr(os, name))))
        opening = counting("open", builtins.open)
        stack.enter_context(mock.patch.object(builtins, "open", opening))
        stack.enter_context(mock.patch.object(io, "open", opening))
        yield counts


# --- what is there


class SimulatedSweep:
    """A sweep file, its trials' folders, their submission, and Slurm's commands.

    Args:
        base: an empty folder for all of it.
        count: trials declared, a multiple of ten.
        begun: whether they have folders.
        running: of those that have, so many run, each in a job of its own.
        method: of the sweep.
    """

    def __init__(
        self, base: Path, count: int, begun: bool = True, running: int = 0, method: str = "grid"
    ) -> None:
        self.base, self.count, self.running = base, count, running
        self.runs, self.file = base / "runs", base / "scale.yaml"
        self.folder, self.stubs = self.runs / "scale", base / "stubs"
        most = 0.00001 * (count // 10 + 0.5)
        self.file.write_text(SWEEP.format(method=method, count=count, most=most))
        self._write_stubs()
        if begun:
            self._write_trials()

    def _write_stubs(self) -> None:
        self.stubs.mkdir()
        for name, lines in STUBS.items():
            file = self.stubs / name
            file.write_text("\n".join(["#!/bin/bash", f"HERE={self.stubs}", *lines, ""]))
            file.chmod(0o755)
        (self.stubs / "number").write_text("5000\n")
        for name in ("queue", "ends"):
            (self.stubs / name).write_text("")

    def _write_trials(self) -> None:
        from mlmodeldev.sweep import load

        self.folder.mkdir(parents=True)
        logs = self._write_logs()
        trials = list(load(self.file).trials())
        states = list(self._states(len(trials)))
        queue, owners = [], {}
        for number, (trial, state) in enumerate(zip(trials, states, strict=True)):
            job = {"array_job_id": f"{1000 + number // ARRAY}", "array_task_id": number % ARRAY}
            task = "{array_job_id}_{array_task_id}".format(**job)
            if state in ("running", "missing"):
                named = state == "running"
                words = ("RUNNING", "None") if named else ("PENDING", "JobArrayTaskLimit")
                queue.append("|".join((task, *words, "1:00:00", f"n{number % 500}" * named)))
            if state == "missing":
                continue
            folder = self.folder / trial.id
            folder.mkdir()
            record = _record(trial, state, number, {k: str(v) for k, v in job.items()})
            (folder / "trial.json").write_text(json.dumps(record, indent=1))
            for name, file in logs[number % VARIANTS].items():
                os.link(file, folder / name)
            owners[trial.id] = task
        self.owners = owners
        (self.stubs / "queue").write_text("\n".join(queue) + "\n")
        self._write_submission([trial.id for trial in trials])

    def _states(self, count: int) -> Iterator[str]:
        """Yield states: of ten trials seven are done, one failed, one waits or runs, one waits."""
        running = self.running
        for number in range(count):
            place = number % 10
            if place < 7:
                yield "done"
            elif place == 7:
                yield "failed"
            elif running > 0:
                running -= 1
                yield "running"
            else:
                yield "missing"

    def _write_logs(self) -> list[dict[str, Path]]:
        written, draw = [], random.Random(0)
        place = self.base / "logs"
        place.mkdir()
        for number in range(VARIANTS):
            values = sorted(draw.random() for _ in range(EPOCHS))
            log = [{"epoch": e + 1, METRIC: v, "val/loss": 1 - v} for e, v in enumerate(values)]
            rows = [f"{e * 39},{e},{v:.6f},{1 - v:.6f}" for e, v in enumerate(values)]
            texts = {
                "log.json": json.dumps(log, indent=1),
                "metrics.csv": "\n".join([f"step,epoch,{METRIC},train/loss", *rows, ""]),
            }
            files = {name: place / f"{number}-{name}" for name in texts}
            for name, text in texts.items():
                files[name].write_text(text)
            written.append(files)
        return written

    def _write_submission(self, trials: list[str]) -> None:
        from mlmodeldev.slurm.submission import SWEEP_COPY, Submission

        submission = Submission.new(self.folder, self.runs / ".snapshots" / "code")
        (submission.folder / SWEEP_COPY).write_bytes(self.file.read_bytes())
        for number in range(0, len(trials), ARRAY):
            tasks = [[trial] for trial in trials[number : number + ARRAY]]
            submission.arrays.append((str(1000 + number // ARRAY), tasks))
        submission.save()

    # --- what is asked of it

    def words(self, *command: str) -> list[str]:
        """Return a command's words, with the sweep and its folder."""
        first, *rest = command
        fixed = ["cluster=debug", "logger=csv", f"artefacts.runs_dir={self.runs}"]
        return [first, "--sweep", str(self.file), *rest, *fixed]

    def measured(self, *command: str) -> dict[str, Any]:
        """Run a command in a process of its own; return what it took (`main`)."""
        return in_process("benchmarks.simulated_cluster", [str(self.base), *self.words(*command)],
                          self.environment())  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Return the variables with which Slurm's commands are these."""
        return {**os.environ, "PATH": f"{self.stubs}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}


def _record(trial: Any, state: str, number: int, slurm: Mapping[str, Any]) -> dict[str, Any]:
    """Return what such a trial's record holds."""
    from mlmodeldev.lease import lease_end

    record = {
        "version": 2,
        "id": trial.id,
        "name": trial.name,
        "state": state,
        "created": _FORMER + number,
        "overrides": trial.overrides,
        "epoch": EPOCHS,
        "epochs": EPOCHS,
        "attempts": 1,
        "seconds": 600.0,
        "metric": {"name": METRIC, "mode": "max", "value": number % 997 / 997, "epoch": EPOCHS},
        "usage": {"cpu_seconds": 500.0, "seconds": 600.0, "memory_gib": 3.0},
        "software": {"python": "3.11", "torch": "2.13", "library": "0.2"},
        "sha": "1a2b3c4d5e6f",
        "slurm": {"job_id": f"{10**6 + number}", **slurm},
    }
    if state == "failed":
        record["reason"] = "ValueError: a defect"
    if state == "running":
        owner = {"host": f"n{number % 500}", "pid": 4242, "started": 7, "token": f"{number:032x}"}
        record |= {"owner": owner | {"namespace": 1}, "lease": lease_end()}
    return record


# --- a process of its own


def in_process(
    module: str, words: Sequence[str], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run ``python -m MODULE WORD...``; return the JSON object that it prints last.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(environment or os.environ), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{command}: exit status {done.returncode}\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def taken(counts: Counts, begun: float) -> dict[str, Any]:
    """Return what this process has used: CPU seconds since, MiB at most, calls to files."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu": time.process_time() - begun + children.ru_utime + children.ru_stime,
        "mib": _peak_mib(),
        "calls": counts.total,
        "kinds": dict(counts.kinds),
        "most": counts.paths.most_common(3),
    }


def _peak_mib() -> int:
    """Return the most memory of this program; `resource` counts what its parent had, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def main(base: str, *words: str) -> int:
    """Answer SlurmTrain.py's words, its output put aside; print what that took."""
    from mlmodeldev.report.command import look_after  # noqa: F401 - imported before the clock
    from mlmodeldev.slurm import command_line, preflight

    others = {"report": "mlmodeldev.report.command"}
    with counted_calls(Path(base)) as counts, open(os.devnull, "w") as nothing:  # noqa: PTH123
        begun = time.process_time()
        # the files may lie in memory, where no node would see them
        in_memory = mock.patch.object(preflight, "refuse_memory", lambda _: None)
        with contextlib.redirect_stdout(nothing), in_memory:
            status = command_line.main(words, others)
        result = taken(counts, begun)
    print(json.dumps(result))
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
