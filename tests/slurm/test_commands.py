"""What the commands know of one another: a killed submit, an edited file, retry, logs -f.

The jobs run a stand-in for Python that sleeps, or writes what a trial would.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.schema import Cluster as Settings
from mlmodeldev.slurm import preflight
from mlmodeldev.slurm.entrypoint import PackedTrials
from mlmodeldev.slurm.epilog import is_crash_loop
from mlmodeldev.slurm.limits import Node
from mlmodeldev.slurm.preflight import check_settings
from mlmodeldev.slurm.submission import submissions
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.task import WAIT, TrialResult, TrialTask
from tests.slurm.cluster import ROOT, Cluster, Slurm
from tests.slurm.sweeps import SmallSweep


def program(file: Path, *lines: str) -> Path:
    file.write_text("\n".join(["#!/bin/bash", *lines, ""]))
    file.chmod(0o755)
    return file


@pytest.fixture
def sweep(own_slurm: Cluster, tmp_path: Path, data_dir: Path) -> Iterator[SmallSweep]:
    yield SmallSweep(own_slurm, tmp_path, data_dir, 3)
    own_slurm.heal()


def test_the_jobs_of_a_killed_submit_are_reattached(sweep: SmallSweep, tmp_path: Path) -> None:
    """sbatch takes the array, and its caller dies before it can note the number."""
    slurm = sweep.slurm
    tools = tmp_path / "bin"
    tools.mkdir()
    deadly = [f'{shutil.which("sbatch")} "$@" || exit', "kill -9 $PPID"]
    program(tools / "sbatch", *deadly)
    before = slurm.env["PATH"]
    slurm.env["PATH"] = f"{tools}:{before}"
    try:
        hold = "+cluster.sbatch.hold=true"
        assert sweep.train("submit", hold, check=False).returncode == -signal.SIGKILL
    finally:
        slurm.env["PATH"] = before
    (made,) = submissions(sweep.folder)
    assert (made.arrays, made.intent) == ([], [[trial] for trial in sweep.trials])
    jobs = slurm.run("squeue", "-h", "-o", "%F").split()
    assert len(jobs) == 1, "one array"

    rows = json.loads(sweep.train("status", "--json").stdout)["trials"]
    assert [row["job"] for row in rows] == [f"{jobs[0]}_{index}" for index in range(3)]
    assert {row["state"] for row in rows} == {"queued"}
    again = json.loads(sweep.train("submit", hold, "--json").stdout)
    assert again["submitted"] == [], "none is submitted twice"
    assert json.loads(sweep.train("cancel", "--json").stdout)["cancelled"] == jobs
    slurm.wait_for(lambda: not slurm.run("squeue", "-h"), 60, "an empty queue")


def test_of_two_submits_at_once_one_submits(sweep: SmallSweep) -> None:
    command = [sys.executable, str(ROOT / "slurm" / "SlurmTrain.py"), "submit"]
    arguments = ["--sweep", str(sweep.file), "cluster=debug", *sweep.fixed]
    both = [
        subprocess.Popen(
            [*command, *arguments, "+cluster.sbatch.hold=true"],
            env=sweep.slurm.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    errors = [process.communicate(timeout=200)[1] for process in both]
    assert len(sweep.slurm.run("squeue", "-h", "-r").splitlines()) == 3, errors
    late = [text for process, text in zip(both, errors, strict=True) if process.returncode]
    assert all("another command submits its trials" in text for text in late)


def test_an_edited_sweep_file_is_reported(sweep: SmallSweep) -> None:
    hold = "+cluster.sbatch.hold=true"
    assert "has changed" not in sweep.train("submit", hold).stderr
    (gone,) = (trial for trial in sweep.trials if sweep.seeds[trial] == 2)
    text = sweep.file.read_text()
    sweep.file.write_text(f"# the same points\n{text}")
    assert "has changed" not in sweep.train("status").stderr
    sweep.file.write_text(text.replace("[0, 1, 2]", "[0, 1, 7]"))

    messages = [line for line in sweep.train("status").stderr.splitlines() if "has changed" in line]
    assert len(messages) == 1
    assert "1 trial added (" in messages[0]
    assert f"1 trial removed ({gone})" in messages[0]
    assert "submit runs what was added, submit --prune ends what was removed" in messages[0]
    assert "retry runs failed trials that are still declared" in sweep.train("retry").stderr
    assert len(sweep.slurm.run("squeue", "-h", "-r").splitlines()) == 3, "they said so, no more"

    done = sweep.train("submit", hold, "--prune", "--json")
    assert "what was added runs now" in done.stderr
    assert f"told to end: {gone}" in done.stderr
    assert len(json.loads(done.stdout)["submitted"]) == 1
    queue = sweep.slurm.run("squeue", "-h", "-r", "-o", "%i").split()
    assert sweep.job(gone) not in queue
    assert len(queue) == 3


def test_submit_leaves_what_failed_and_retry_recalls_its_options(sweep: SmallSweep) -> None:
    """Of two finished and one failed trial, as their records say, only retry runs any."""
    settings = ("+cluster.sbatch.hold=true", "optimizer.lr=0.007", "cluster.minutes=7")
    sweep.train("submit", *settings)
    sweep.train("cancel")
    *well, bad = sweep.trials
    for trial, state in [*((trial, "done") for trial in well), (bad, "failed")]:
        (sweep.folder / trial).mkdir()
        TrialFolder(sweep.folder / trial).update(state=state)
    done = sweep.train("submit", "--json")
    assert json.loads(done.stdout)["submitted"] == []
    assert f"failed, and left: {bad}; python slurm/SlurmTrain.py retry" in done.stderr

    sweep.fixed = [item for item in sweep.fixed if "runs_dir" in item]  # where they lie, no more
    again = json.loads(sweep.train("retry", "cluster=debug", "--json").stdout)
    assert again["jobs"] == 1
    fields = sweep.slurm.job(again["submitted"][0])
    assert fields["TimeLimit"] == "00:07:00"
    assert fields["JobState"] == "PENDING", "held, as it was"
    (job,) = pickle.loads((submissions(sweep.folder)[-1].folder / "tasks-0.pkl").read_bytes())
    assert [each.id for each in job.trials] == [bad]
    assert "optimizer.lr=0.007" in job.trials[0].overrides


TWICE = """\
case "$*" in *slurm.epilog*) exec {python} "$@" ;; esac
trial=$(dirname $(dirname $(dirname $MLMODELDEV_SUBMISSION)))/{trial}
mkdir -p $trial
if [ -z "$SLURM_RESTART_COUNT" ]; then
  echo "the first start" >> $trial/log.txt
  exit 75
fi
echo "the second start" >> $trial/log.txt
echo '{{"state": "done"}}' > $trial/new && mv $trial/new $trial/trial.json"""
"""What a trial does that is warned in its first start."""


def test_a_log_is_followed_through_a_requeue(
    own_slurm: Cluster, tmp_path: Path, data_dir: Path
) -> None:
    sweep = SmallSweep(own_slurm, tmp_path, data_dir, 2)
    first, other = sweep.trials
    python = program(tmp_path / "python", TWICE.format(python=sys.executable, trial=first))
    sweep.train("submit", "--count", "1", f"cluster.python={python}")
    command = [sys.executable, str(ROOT / "slurm" / "SlurmTrain.py"), "logs", "-f"]
    followers = [
        subprocess.Popen(
            [*command, trial, "--sweep", str(sweep.file), "cluster=debug", *sweep.fixed],
            env=own_slurm.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
            # a suite that runs in the background has Ctrl-C ignored, and hands that on
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        for trial in (first, other)
    ]  # fmt: skip
    try:
        out, err = followers[0].communicate(timeout=240)
        assert (followers[0].returncode, err) == (0, "")
        starts = [line for line in out.splitlines() if "start" in line and "SLURM" not in line]
        assert starts == ["the first start", "the second start"]
        # the other has nothing to say; by now it has been waiting for long
        os.kill(followers[1].pid, signal.SIGINT)
        out, err = followers[1].communicate(timeout=60)
        assert (followers[1].returncode, out, err) == (130, "", "")
    finally:
        for process in followers:
            process.kill()
    own_slurm.heal()


SLEEPER = """\
case "$*" in *slurm.epilog*) exec {python} "$@" ;; esac
exec sleep 600"""


def test_cancel_ends_one_trial_and_leaves_the_others(sweep: SmallSweep, tmp_path: Path) -> None:
    python = program(tmp_path / "python", SLEEPER.format(python=sys.executable))
    sweep.train("submit", f"cluster.python={python}")
    jobs = [sweep.job(trial) for trial in sweep.trials]
    sweep.slurm.wait_for(lambda: set(sweep.slurm.running()) == set(jobs), 120, "three jobs")
    done = sweep.train("cancel", "--trial", sweep.trials[1], "--json")
    assert json.loads(done.stdout)["cancelled"] == [jobs[1]]
    sweep.slurm.wait_for(lambda: sweep.slurm.over(jobs[1]), 120, "the job's end")
    assert sweep.slurm.state(jobs[1]) == "CANCELLED"
    assert sorted(sweep.slurm.running()) == sorted([jobs[0], jobs[2]])


# --- without a cluster


def test_the_last_lines_of_a_log(tmp_path: Path, data_dir: Path) -> None:
    sweep = SmallSweep(Slurm(), tmp_path, data_dir, 2)
    trial, other = sweep.trials
    for name in (trial, other):
        (sweep.folder / name).mkdir(parents=True)
        lines = [f"{name} says {number}" for number in range(5)]
        (sweep.folder / name / "log.txt").write_text("\n".join(lines) + "\n")

    def logs(*options: str) -> list[str]:
        command = [sys.executable, str(ROOT / "slurm" / "SlurmTrain.py"), "logs", *options, trial]
        command += ["--sweep", str(sweep.file), "cluster=local", *sweep.fixed]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    assert logs("-n", "3") == [f"{trial} says {number}" for number in (2, 3, 4)]
    assert logs() == [f"{trial} says {number}" for number in range(5)]


def work(folder: Path, name: str) -> TrialTask:
    (folder / name).mkdir()
    return TrialTask(name, folder / name)


def test_a_packed_trial_that_is_killed_again_and_again_stays_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "jobs.json"
    note.write_text(json.dumps({"restarts_after_kill": 2}))
    monkeypatch.setenv("MLMODELDEV_SUBMISSION", str(note))
    source = PackedTrials([work(tmp_path, name) for name in "ab"])
    a, b = source.take(), source.take()
    assert isinstance(a, TrialTask) and isinstance(b, TrialTask)
    assert source.take() is WAIT, "one of them may be killed yet"
    killed = TrialResult(-signal.SIGKILL, "failed", "killed", 1.0)
    for _ in range(2):
        assert source.report(a, killed) == "pending"
        assert source.take() is a
    assert source.report(a, killed) is None, "the third time it counts"
    assert source.report(b, TrialResult(1, "failed", "its own error", 1.0)) is None
    assert source.take() is None


def test_a_job_in_vain_is_one_without_a_new_checkpoint_three_times(tmp_path: Path) -> None:
    note, trial = tmp_path / "note.json", tmp_path / "trial"

    def saves(step: int) -> None:
        (trial / "checkpoints").mkdir(parents=True, exist_ok=True)
        (trial / "checkpoints" / f"step-{step:08}.ckpt").touch()

    assert [is_crash_loop(note, [trial]) for _ in range(2)] == [False, False]
    saves(7)
    assert [is_crash_loop(note, [trial]) for _ in range(3)] == [False] * 3
    saves(8)
    assert [is_crash_loop(note, [trial]) for _ in range(4)] == [False, False, False, True]


def test_a_limit_that_leaves_no_time_to_begin_is_refused() -> None:
    check_settings(Settings(minutes=3, warn_seconds=120))
    with pytest.raises(UsageError, match=r"minutes=2: .* at least 3 minutes"):
        check_settings(Settings(minutes=2, warn_seconds=120))


@pytest.mark.parametrize(
    ("kind", "address", "message"),
    [
        ("ext4", "gpu01", "lies on a disk of this machine (ext4); jobs on n1 may not see it"),
        ("overlay", "10.0.0.7", "(overlay)"),
        ("ext4", "127.0.0.1", ""),
        ("ext4", socket.gethostname(), ""),
        ("nfs4", "gpu01", ""),
        ("lustre", "gpu01", ""),
        ("fuse.gpfs", "gpu01", ""),
    ],
)
def test_a_runs_folder_on_the_login_nodes_own_disk(
    kind: str, address: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext3 rw 0 0\nserver:/x {tmp_path} {kind} rw 0 0\n")
    monkeypatch.setattr(preflight, "MOUNTS", mounts)
    node = Node("n1", address, frozenset({"main"}), 4, 4000, 0, frozenset())
    assert message in preflight.local_disk_warning(tmp_path / "runs" / "deeper", [node])
    assert bool(message) == bool(preflight.local_disk_warning(tmp_path, [node]))
