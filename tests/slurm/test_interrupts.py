"""SlurmTrain's trials come back from every interruption as the same trial, bit for bit.

All disturbances happen at once, each to a trial that has a node to itself; the tests then look at
how it ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import TrialResult, Trials
from tests.slurm import sweeps
from tests.slurm.cluster import Cluster
from tests.slurm.sweeps import SmallSweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # all wait for the slowest

STEP = 0.4
"""Seconds a step, until the trial is disturbed; it has 57 of them."""
ALONE = ("cluster.cpus_per_task=4", "cluster.max_jobs=8")
CASES = ("preempted", "requeued", "killed", "node-died")
NOWHERE = f"""\
#!/bin/sh
case "$*" in *slurm.epilog*) exec {sys.executable} "$@" ;; esac
exit 75
"""
"""A trial that is always warned before it has begun."""


class Disturbed:
    """The sweeps and which trial met with what."""

    def __init__(self, slurm: Cluster, folder: Path, data: Path) -> None:
        self.slurm = slurm
        self.many = SmallSweep(slurm, folder, data, len(CASES), "many", STEP)
        self.nograce = SmallSweep(slurm, folder, data, 1, "nograce", STEP)
        self.orphaned = SmallSweep(slurm, folder, data, 1, "orphaned", 3 * STEP)
        self.controller = SmallSweep(slurm, folder, data, 1, "controller", 3 * STEP)
        self.stop = SmallSweep(slurm, folder, data, 1, "stop", STEP)
        self.walltime = SmallSweep(slurm, folder, data, 1, "walltime", 4 * STEP)
        self.packed = SmallSweep(slurm, folder, data, 2, "packed", STEP)
        self.nowhere = SmallSweep(slurm, folder, data, 1, "nowhere")
        self.python = folder / "python"
        self.of = {case: (self.many, t) for case, t in zip(CASES, self.many.trials, strict=True)}
        self.of["preempted-without-grace"] = (self.nograce, self.nograce.trials[0])
        self.of["orphaned"] = (self.orphaned, self.orphaned.trials[0])
        self.of["controller-restarted"] = (self.controller, self.controller.trials[0])
        self.of["cancelled"] = (self.stop, self.stop.trials[0])
        self.of["wall-time"] = (self.walltime, self.walltime.trials[0])
        self.of["packed"] = (self.packed, self.packed.trials[0])

    def submit(self) -> None:
        self.walltime.train("submit", *ALONE, "cluster.warn_seconds=120")
        # signals reach the loader's processes, too
        workers = ("cluster.partition=nograce", "processing.num_workers=1")
        self.nograce.train("submit", *ALONE, *workers)
        self.many.train("submit", *ALONE)
        self.orphaned.train("submit", *ALONE)
        self.controller.train("submit", "cluster.cpus_per_task=1")
        self.packed.train("submit", "cluster.cpus_per_task=2", "cluster.trials_per_gpu=2")
        self.python.write_text(NOWHERE)
        self.python.chmod(0o755)
        self.nowhere.train("submit", f"cluster.python={self.python}")
        self.stop.train("submit", *ALONE)

    def disturb(self) -> None:
        """Disturb each trial as soon as it has a checkpoint."""
        waiting = dict(self.of)

        def one() -> bool:
            for case, (sweep, trial) in list(waiting.items()):
                if case == "controller-restarted" and len(waiting) > 1:
                    continue  # nodes register anew then, which delays what else is going on
                if sweep.step(trial) >= 5:
                    self.disturb_trial(case, sweep, trial)
                    del waiting[case]
            return not waiting

        self.slurm.wait_for(one, 400, f"checkpoints of {list(waiting)}")

    def disturb_trial(self, case: str, sweep: SmallSweep, trial: str) -> None:
        """Let a trial meet with what its case is called after."""
        if case.startswith("preempted"):
            self.preempt(sweep, trial)
        elif case == "requeued":
            self.slurm.scontrol("requeue", sweep.job(trial))
        elif case in ("killed", "packed"):
            os.kill(sweep.record(trial)["owner"]["pid"], signal.SIGKILL)
        elif case == "node-died":
            self.slurm.kill_node(sweep.node(trial))
        elif case == "wall-time":
            self.slurm.bring_limit_near(sweep.job(trial))
        elif case == "orphaned":
            node = sweep.node(trial)
            self.slurm.kill_node(node, tasks=False)
            self.slurm.scontrol("update", f"nodename={node}", "state=down", "reason=orphaned")
        elif case == "controller-restarted":
            self.slurm.restart_slurmctld()
            sweep.release()
        elif case == "cancelled":
            self.slurm.run("scancel", sweep.job(trial))

    def preempt(self, sweep: SmallSweep, trial: str) -> None:
        """Let a job of higher priority take the trial's node for a few seconds."""
        job = self.slurm.sbatch(
            *("-p", "high", "-w", sweep.node(trial), "-c", "4", "-o", "/dev/null"),
            *("--wrap", "sleep 3"),
        )
        begun = ("RUNNING", "COMPLETING", "COMPLETED")
        self.slurm.wait_for(lambda: self.slurm.state(job) in begun, 60, "preemption")

    def wait(self) -> None:
        self.slurm.wait_for_requeue(self.walltime.job(self.walltime.trials[0]), 10)
        for case, (sweep, trial) in self.of.items():
            sweep.wait_until(trial, "interrupted" if case == "cancelled" else "done", 400)
        self.nowhere.wait_until(self.nowhere.trials[0], "failed", 200)


@pytest.fixture(scope="module")
def both(
    own_slurm: Cluster,
    tmp_path_factory: pytest.TempPathFactory,
    data_dir: Path,
    shared_trials: Trials,
) -> tuple[Disturbed, dict[int, TrialResult]]:
    made = Disturbed(own_slurm, tmp_path_factory.mktemp("disturbed"), data_dir)
    with contextlib.ExitStack() as stack:
        stack.callback(own_slurm.heal)
        with ThreadPoolExecutor(1) as beside:  # a trial may be over when all are submitted
            submitted = beside.submit(made.submit)
            made.disturb()
            submitted.result()
        # while Slurm lets the jobs wait
        calm = {seed: run_undisturbed(shared_trials, seed) for seed in range(len(CASES))}
        made.wait()
    return made, calm


def run_undisturbed(trials: Trials, seed: int) -> TrialResult:
    ended = trials.run(*sweeps.SMALL, f"training.seed={seed}", name=f"undisturbed-{seed}")
    assert ended.code == 0, ended.output
    return ended


@pytest.fixture(scope="module")
def disturbed(both: tuple[Disturbed, dict[int, TrialResult]]) -> Disturbed:
    return both[0]


@pytest.fixture(scope="module")
def undisturbed(both: tuple[Disturbed, dict[int, TrialResult]]) -> dict[int, TrialResult]:
    """The same trials by their seeds, run to their end in one go."""
    return both[1]


ALL = [
    *(*CASES, "preempted-without-grace", "orphaned", "controller-restarted", "wall-time"),
    "packed",
]


@pytest.mark.parametrize("case", ALL)
def test_it_comes_back_as_the_same_trial(disturbed: Disturbed, undisturbed, case: str) -> None:
    import torch

    sweep, trial = disturbed.of[case]
    record = sweep.record(trial)
    assert record["id"] == trial
    if case == "wall-time":  # on a slow machine it may meet the near limit once more
        assert record["attempts"] >= 2
    else:
        assert record["attempts"] == (1 if case == "controller-restarted" else 2), sweep.report(
            trial
        )
    log = (sweep.folder / trial / "log.txt").read_text()
    assert log.count("going on from step") == record["attempts"] - 1
    mine = max((sweep.folder / trial / "checkpoints").glob("step-*.ckpt"))
    other = undisturbed[sweep.seeds[trial]].checkpoint
    assert mine.name == other.name
    a, b = (torch.load(f, weights_only=True) for f in (mine, other))
    for name, tensor in a["state_dict"].items():
        assert torch.equal(tensor, b["state_dict"][name]), name


def test_of_two_attempts_at_once_the_earlier_one_gives_way(disturbed: Disturbed) -> None:
    sweep, trial = disturbed.of["orphaned"]
    text = (sweep.folder / trial / "log.txt").read_text()
    assert "attempt 2 has taken over; standing still" in text


def test_wall_time_is_no_end(disturbed: Disturbed) -> None:
    """Slurm's own warning came, and the same job ran again."""
    sweep, trial = disturbed.of["wall-time"]
    assert int(sweep.record(trial)["slurm"]["restart_count"]) >= 1
    (log,) = sweep.folder.glob(".jobs/*/*_log.out")
    assert "trials ended with 75; the job is RUNNING" in log.read_text()
    assert "interrupted by SIGUSR2" in (sweep.folder / trial / "log.txt").read_text()


def test_of_packed_trials_only_the_killed_one_is_begun_again(disturbed: Disturbed) -> None:
    sweep = disturbed.packed
    killed, other = (sweep.record(trial) for trial in sweep.trials)
    assert (killed["state"], other["state"]) == ("done", "done")
    assert (killed["attempts"], other["attempts"]) == (2, 1)
    assert killed["slurm"]["job_id"] == other["slurm"]["job_id"]
    assert "restart_count" not in killed["slurm"], "the job went on meanwhile"


def test_a_job_that_gets_nowhere_is_given_up(disturbed: Disturbed) -> None:
    sweep, slurm = disturbed.nowhere, disturbed.slurm
    (trial,) = sweep.trials
    assert sweep.record(trial)["reason"].startswith("3 starts in a row ended before a step")
    slurm.wait_for(lambda: slurm.state(sweep.job(trial)) == "FAILED", 60, "the job's end")
    assert slurm.job(sweep.job(trial))["Restarts"] == "2"


def test_cancelled_means_stop(disturbed: Disturbed) -> None:
    sweep, trial = disturbed.of["cancelled"]
    assert sweep.record(trial)["attempts"] == 1
    assert disturbed.slurm.state(sweep.job(trial)) in ("CANCELLED", "")


def test_no_trial_ran_twice_and_no_row_is_double(disturbed: Disturbed) -> None:
    import csv

    for case, (sweep, trial) in disturbed.of.items():
        if case == "cancelled":
            continue  # it had not come to a row yet
        with (sweep.folder / trial / "metrics.csv").open() as file:
            steps = [(r["step"], r["val/accuracy"] != "") for r in csv.DictReader(file)]
        assert len(steps) == len(set(steps)), (trial, steps)
