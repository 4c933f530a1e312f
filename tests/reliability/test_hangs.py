"""A trial that hangs is seen from outside, ended with its stacks written down, and begun again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlmodeldev.trial.beats import Phase
from mlmodeldev.trial.patience import START_SECONDS, Activity, Patience
from mlmodeldev.trial.rank_votes import RankVotes
from tests.conftest import ROOT, TrialResult, Trials
from tests.reliability.step_cost import microseconds_a_step
from tests.slurm.sweeps import SMALL

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")

PROGRAM = """
import ctypes, os, signal, time
from mlmodeldev.trial.beats import Phase, beat
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.watch import begin_watch

def hang(case):
    if case == "step": ctypes.CDLL(None).sem_wait(ctypes.create_string_buffer(64))
    if case in ("stopped", "ever"): os.kill(os.getpid(), signal.SIGSTOP)
    if case == "pipe": os.fdopen(os.pipe()[1], "wb").write(b"x" * 1_000_000)

def train(settings):
    folder = TrialFolder.open(settings)
    folder.claim()
    case = folder.id
    watch = begin_watch(folder, settings.training.watchdog_seconds)
    for _ in range(5):
        beat(Phase.STEP)
        beat(Phase.DATA)
    beat(Phase.STEP)
    (folder.path / "pid").write_text(str(os.getpid()))
    if folder.attempt == 1 or case == "ever":
        hang(case)
    if case == "slow":  # in state D until somebody opens the other end
        gate = str(folder.path / "gate")
        os.mkfifo(gate)
        opened = [(os.POSIX_SPAWN_OPEN, 0, gate, os.O_RDONLY, 0)]
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}, file_actions=opened), 0)
    if case == "paused":
        while not (folder.path / "go").exists():
            time.sleep(0.05)
    beat(Phase.DATA)
    folder.finish("done")
    watch.end()
"""

DRIVER = """
import json, sys
from pathlib import Path
from mlmodeldev.trial import worker
from mlmodeldev.trial.pool import ListSource, TrialTask, run_pool
worker.HEAVY = ()
here, names = Path(sys.argv[1]), sys.argv[2:]
fixed = [f"artefacts.runs_dir={here}/runs", "training.watchdog_seconds=2"]
work = [
    TrialTask(n, here / "runs/single" / n, [*fixed, f"artefacts.trial={n}"], "program")
    for n in names
]
source = ListSource(work)
status = run_pool(source, len(names), ["program"], here)
print(json.dumps([status, {work.id: ended.state for work, ended in source.ended}]))
"""
CASES = ("step", "stopped", "pipe", "slow", "paused", "ever")
HUNG_TWICE = {"phase": "a training step", "seconds": 0.1, "checkpoint": "", "times": 2}


class Hanging:
    """A pool whose trials meet each with what it is called after.

    Attributes:
        printed: what the pool has printed.
        states: how the pool says that they ended.
    """

    def __init__(self, here: Path) -> None:
        (here / "program.py").write_text(PROGRAM)
        (here / "conf").symlink_to(ROOT / "conf")
        self.runs = here / "runs/single"
        (self.runs / "ever").mkdir(parents=True)
        former = {"state": "interrupted", "attempts": 5, "hang": HUNG_TWICE}
        (self.runs / "ever/trial.json").write_text(json.dumps(former))
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(here), *CASES],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        paused = self.pids("paused")
        for each in reversed(paused):
            os.kill(each, signal.SIGSTOP)
        self.pids("slow")
        wait_for(lambda: len(list(self.runs.glob("*/hung-1.txt"))) == 3)  # longer than a limit
        time.sleep(1)
        for each in paused:
            os.kill(each, signal.SIGCONT)
        (self.runs / "paused/go").touch()
        with (self.runs / "slow/gate").open("w"):
            out, _ = process.communicate(timeout=100)
        *lines, last = out.splitlines()
        self.printed = "\n".join(lines)
        self.status, self.states = json.loads(last)

    def pids(self, case: str) -> list[int]:
        """Return the process of a trial that is in its step, and its watcher."""
        file = self.runs / case / "pid"
        wait_for(lambda: file.exists() and file.read_text() != "")
        pid = int(file.read_text())
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def record(self, case: str) -> dict:
        return json.loads((self.runs / case / "trial.json").read_text())


def wait_for(reached) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Hanging:
    return Hanging(tmp_path_factory.mktemp("pool"))


def test_the_pool_begins_what_hung_again(pool: Hanging) -> None:
    assert pool.states == {**dict.fromkeys(CASES, "done"), "ever": "failed"}
    for case in ("step", "stopped", "pipe"):
        record = pool.record(case)
        assert record["attempts"] == 2, case
        assert record["hang"]["phase"] == "a training step"
        assert record["hang"]["seconds"] < 3 * record["hang"]["usual"] + 2
        assert f"{case}  hung: a training step lasted 2 s" in pool.printed


def test_three_hangs_without_a_new_checkpoint_are_a_failure(pool: Hanging) -> None:
    assert pool.status == 1
    reason = pool.record("ever")["reason"]
    assert reason.startswith("3 attempts in a row hung, and came to no new checkpoint; hung: a tra")
    assert pool.record("ever")["attempts"] == 6


def test_the_stacks_say_where_it_was(pool: Hanging) -> None:
    text = {case: (pool.runs / case / "hung-1.txt").read_text() for case in CASES[:3]}
    assert "in hang" in text["step"]  # the call in C holds no lock of Python's, nor does it return
    assert "in hang" in text["pipe"]
    assert "state T" in text["stopped"]


def test_a_pause_and_a_slow_file_system_are_no_hangs(pool: Hanging) -> None:
    for case in ("slow", "paused"):
        assert pool.record(case)["attempts"] == 1
        assert "hang" not in pool.record(case)
        assert not list((pool.runs / case).glob("hung*"))


# --- a real trial


@pytest.fixture(scope="module")
def undisturbed(shared_trials: Trials) -> TrialResult:
    ended = shared_trials.run(*WATCHED, name="never-hung")
    assert ended.code == 0, ended.output
    assert "watchdog" not in ended.output
    return ended


WATCHED = (*SMALL, "training.watchdog_seconds=2", "training.limit_val_batches=4")


@pytest.mark.parametrize(
    ("method", "call", "phase"),
    [("training_step", 20, "a training step"), ("validation_step", 6, "a validation step")],
)
def test_a_trial_that_hung_ends_with_the_same_weights(
    shared_trials: Trials, undisturbed: TrialResult, method: str, call: int, phase: str
) -> None:
    import torch

    stop = (signal.SIGSTOP, call)
    hung = shared_trials.run(*WATCHED, signal_at=stop, during=method, name=method)
    assert hung.code == -signal.SIGKILL
    assert hung.record["state"] == "interrupted"
    assert hung.record["hang"]["phase"] == phase
    assert hung.record["reason"].startswith(f"hung: {phase} lasted ")
    assert hung.record["hang"]["seconds"] < 3 * hung.record["hang"]["usual"] + 2
    assert "watchdog: hung" in hung.output
    again = shared_trials.run(*WATCHED, name=method)
    assert again.code == 0, again.output
    assert again.record["attempts"] == 2
    states = [
        torch.load(each.checkpoint, weights_only=True)["state_dict"]
        for each in (again, undisturbed)
    ]
    assert again.checkpoint.name == undisturbed.checkpoint.name
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert again.rows == undisturbed.rows


# --- how long is too long


def overdue_after(
    patience: Patience, phase: Phase, activity: Activity = Activity.NONE, count: int = 9
) -> int:
    """Return after how many seconds a phase is overdue."""
    patience.tick(phase, count, 1.0, lambda: activity)
    for second in range(1, 1_000_000):
        if patience.tick(phase, count, 1.0, lambda: activity):
            return second
    raise AssertionError


def taught(seconds: int, phase: Phase) -> Patience:
    """Return the patience that has seen a phase last so long."""
    patience = Patience(60)
    for _ in range(seconds + 1):
        patience.tick(phase, 8, 1.0, lambda: Activity.NONE)
    return patience


@pytest.mark.parametrize("usual", [0, 20, 400])
def test_a_hang_is_seen_within_three_times_the_usual_and_a_minute(usual: int) -> None:
    after = overdue_after(taught(usual, Phase.STEP), Phase.STEP)
    assert 3 * usual < after <= 3 * usual + 57  # two ticks and the stacks are to come


def test_what_computes_gets_ten_times_as_long_and_a_slow_disk_six_hours() -> None:
    idle = overdue_after(taught(10, Phase.STEP), Phase.STEP)
    computing = overdue_after(taught(10, Phase.STEP), Phase.STEP, Activity.COMPUTING)
    assert 8 * idle < computing < 10 * idle
    blocked = overdue_after(taught(10, Phase.DATA), Phase.DATA, Activity.BLOCKED)
    assert 6 * 3600 <= blocked < 6.1 * 3600


def test_what_was_never_seen_and_hooks_get_half_an_hour_the_preparation_a_day() -> None:
    assert 1800 <= overdue_after(Patience(60), Phase.STEP, count=1) < 1810
    assert 1800 <= overdue_after(taught(5, Phase.EPOCH_END), Phase.EPOCH_END) < 1810
    assert overdue_after(Patience(60), Phase.START) >= START_SECONDS


def test_what_was_ended_once_gets_past_it_if_it_was_no_hang() -> None:
    patience = Patience(60, {Phase.STEP: 70.0})
    assert overdue_after(patience, Phase.STEP) == 211


def test_a_step_costs_less_than_two_empty_callbacks() -> None:
    """Of which one takes 5 microseconds on a quiet machine, so less than 10 there."""
    empty, beats = microseconds_a_step()
    assert beats < 2 * empty


# --- several ranks


@pytest.mark.parametrize(
    ("answer", "ends"), [(True, True), (False, False), (None, True)], ids=["hangs", "works", "dead"]
)
def test_the_first_rank_asks_the_others(
    answer: bool | None, ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("mlmodeldev.trial.rank_votes.time.monotonic", lambda: clock[0])
    first, second = (RankVotes(tmp_path, 1, rank, 2) for rank in (0, 1))
    assert not second.is_open()
    decided = False
    for _ in range(20):
        clock[0] += 1.0
        decided = first.all_hang()
        assert second.is_open()
        if answer is not None:
            second.answer(answer)
    assert decided is ends
    assert not second.is_decided()
    first.decide()
    assert second.is_decided()
    second.leave()
    first.wait_for_others()
    first.withdraw()
    assert not second.is_open()
    assert list(tmp_path.iterdir()) == []
