"""Hangs on a real Slurm: each is found, the job requeued, and the trial ends with its own weights.

``python -m tests.reliability.hangs`` brings a cluster up (root, Debian's packages), plants eight
hangs at once and writes the table of docs/reliability.md. ``python -m tests.reliability.hangs
healthy 200`` trains so many trials under watch and counts those that were taken for hung.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.slurm.cluster import ROOT, Cluster
from tests.slurm.sweeps import SMALL, SmallSweep

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- hangs: begin -->", "<!-- hangs: end -->"
WORKERS = ("processing.num_workers=1",)
RANKS = ("cluster.tasks_per_node=2",)
EXPORT = ("callbacks.export.enabled=true",)
WANDB = ("logger=wandb", "logger.wandb.mode=offline")


@dataclass
class Case:
    """A trial with a hang in it.

    Attributes:
        name: of the hang, as in `tests.reliability.hanging_trainer`; the beginning is enough.
        what: in a reader's words.
        more: overrides.
    """

    name: str
    what: str
    more: tuple[str, ...] = ()
    began: float = 0.0
    hang: dict[str, Any] = field(default_factory=dict)
    ended: float = 0.0


CASES = [
    Case("step", "a step waits in C for ever"),
    Case("loader", "a loader's worker stands still", WORKERS),
    Case("all-reduce", "an all-reduce, the partner stands still", RANKS),
    Case("pipe", "a pipe is full", ()),
    Case("stopped", "the process gets SIGSTOP"),
    Case("validation", "a validation step waits for ever"),
    Case("export", "the export waits for ever", EXPORT),
    Case("finish", "the end of the W&B run waits for ever", WANDB),
    Case("calm", "none"),
    Case("calm-ranks", "none, two ranks", RANKS),
]


class Hangs:
    """The cases, each a sweep of one trial."""

    def __init__(self, slurm: Cluster, folder: Path, cases: list[Case]) -> None:
        self.sweeps: dict[str, SmallSweep] = {}
        self.cases = cases
        for case in cases:
            sweep = SmallSweep(slurm, folder, folder / "data", 1, case.name)
            text = sweep.file.read_text()
            program = "tests/reliability/hanging_trainer.py"
            sweep.file.write_text(text.replace("tests/slurm/slow_trainer.py", program))
            planted = "" if case.name.startswith("calm") else case.name
            variables = [f"HANG={planted}", f"HANG_NOTE={folder}/{case.name}.note"]
            waits = [f"{name}_FINISH_TIMEOUT=5" for name in ("WANDB", "MLFLOW", "CLEARML")]
            line = " ".join(["export OMP_NUM_THREADS=1", *variables, *waits])
            sweep.fixed = [
                *(word for word in sweep.fixed if not word.startswith("cluster.setup=")),
                f"cluster.setup=['{line}']",
                "training.limit_val_batches=4",
            ]
            self.sweeps[case.name] = sweep
        self.slurm, self.folder = slurm, folder

    def run(self) -> None:
        """Submit all, and watch until each is done."""
        for case in self.cases:
            done = self.sweeps[case.name].train("submit", "--yes", *case.more, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        self.slurm.wait_for(self._look, 1500, "the trials' ends")

    def _look(self) -> bool:
        over = True
        for case in self.cases:
            sweep = self.sweeps[case.name]
            record = sweep.record(sweep.trials[0])
            note = self.folder / f"{case.name}.note"
            if not case.hang and record.get("hang") and note.exists():
                at_once = record.get("attempts") == 1
                case.ended = record["updated"] if at_once else time.time()
                case.began, case.hang = float(note.read_text()), record["hang"]
                print(f"{case.name}: {record['hang']}", flush=True)
            state = record.get("state")
            assert state != "failed", sweep.report(sweep.trials[0])
            hangs = not case.name.startswith("calm")
            job_is_over = self.slurm.over(sweep.job(sweep.trials[0]))
            over = over and state == "done" and job_is_over and bool(case.hang) is hangs
        return over

    def table(self) -> str:
        """Return the table; every figure is of this run."""
        digests = {name: digest(sweep) for name, sweep in self.sweeps.items()}
        lines = [
            "| what hangs | found as | usual time, s | found after, s | 3 × usual + 60, s |"
            " starts of the job | weights |",
            "|---|---|---|---|---|---|---|",
        ]
        for case in self.cases:
            if case.name.startswith("calm"):
                continue
            sweep = self.sweeps[case.name]
            trial = sweep.trials[0]
            usual, after = case.hang["usual"], case.ended - case.began
            calm = digests["calm-ranks" if case.more == RANKS else "calm"]
            same = "the same" if digests[case.name] == calm else "OTHERS"
            starts = 1 + int(self.slurm.job(sweep.number(trial)).get("Restarts", "0"))
            lines.append(
                f"| {case.what} | {case.hang['phase']} | {usual:.1f} | {after:.1f} |"
                f" {3 * usual + 60:.0f} | {starts} | {same} |"
            )
        return "\n".join(lines)


def digest(sweep: SmallSweep) -> str:
    """Return the digest of a trial's last weights."""
    return hashlib.sha256(sweep.weights(sweep.trials[0])).hexdigest()


def write_between(text: str) -> None:
    """Put a text between the page's marks."""
    page = PAGE.read_text()
    head, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


def healthy(count: int) -> int:
    """Train small trials in a pool, watched as by default; return how many were taken for hung."""
    from mlmodeldev.trial.pool import ListSource, TrialTask, run_pool

    with tempfile.TemporaryDirectory() as name:
        runs = Path(name) / "runs"
        small = [word for word in SMALL if "max_epochs" not in word]
        fixed = [*small, f"artefacts.runs_dir={runs}", f"artefacts.data_dir={name}/data"]
        fixed += ["training.max_epochs=1", "training.limit_train_batches=4"]
        work = []
        for number in range(count):
            trial = runs / "single" / f"t{number}"
            own = [f"training.seed={number}", f"artefacts.trial={trial.name}"]
            work.append(TrialTask(trial.name, trial, [*fixed, *own]))
        source = ListSource(work)
        status = run_pool(source, 2, ["trainer", "model", "datamodule"], ROOT)
        assert status == 0, source.ended
        logs = [(task.folder / "log.txt").read_text() for task in work]
        assert not any("nobody watches" in log for log in logs)
        alarms = sum("watchdog:" in log for log in logs)
        stacks = len(list(runs.glob("*/*/hung-*")))
    print(f"{count} trials done under watch, {alarms} taken for hung, {stacks} stacks written")
    return alarms


def main(arguments: list[str]) -> int:
    """Answer the command line."""
    if arguments[:1] == ["healthy"]:
        return healthy(int(arguments[1]))
    os.environ["WANDB_MODE"] = "offline"
    cases = [case for case in CASES if case.name in arguments or not arguments]
    folder = Path(tempfile.mkdtemp(prefix="hangs-"))  # stays where something goes wrong
    with Cluster(nodes=10) as cluster:
        hangs = Hangs(cluster, folder, cases)
        hangs.run()
        text = hangs.table()
    print(text)
    if cases == CASES:
        write_between(text)
    shutil.rmtree(folder)
    return 1 if "OTHERS" in text else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
