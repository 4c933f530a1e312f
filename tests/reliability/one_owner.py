"""Whether a trial has one owner, whatever processes, machines, clocks and file systems do.

Hypothesis draws what happens in a small world (`tests.reliability.world`); after each write of the
record, and after each answer, it is judged whether that may be. The long form tells what it did::

    python -m tests.reliability.one_owner --steps 20000
"""

from __future__ import annotations

import argparse
import collections
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mlmodeldev.errors import UsageError
from mlmodeldev.lease import HEARTBEAT_SECONDS, LEASE_SECONDS, LostLease
from mlmodeldev.trial.folder import TrialFolder
from tests.reliability.world import LOCKS, MACHINES, Process, World

MEMORY = Path("/dev/shm")
STOPS = st.one_of(st.none(), st.integers(0, 24))
"""How many places a process passes before it stops; None: all."""
COUNTS: collections.Counter[str] = collections.Counter()


class Judge:
    """Follows who owns the trial, and says what may not be.

    Attributes:
        owner: whose record stands; None: nobody's, or of one that has given it up.
        claimed: those whose claim has been answered well.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.owner: Process | None = None
        self.token: str | None = None
        self.claimed: set[str] = set()
        self.overwritten: set[str] = set()
        self.former: set[str] = set()
        self.attempts: dict[int, str] = {}
        self.beats: dict[str, float] = {}
        world.on_write, world.on_move = self.written, self.moved

    def written(self, process: Process, record: dict[str, Any]) -> None:
        """A record has just taken its name."""
        token = record["token"]
        if token != self.token:
            assert token not in self.former, "a superseded process has written the record"
            if token in self.overwritten or self._is_open(self.token):
                pass  # two at once, and one of them will be told that it has lost
            else:
                self._may_end(process, "taken over")
            if self.token:
                (self.former if self.token in self.claimed else self.overwritten).add(self.token)
            self.overwritten.discard(token)
            self.token = token
            self.owner = next(p for p in self.world.processes if p.token == token)
        if record["owner"] is None:
            self.owner = None
        if process.token == token:
            self.beats[token] = self.world.now

    def _is_open(self, token: str | None) -> bool:
        """Whether its claim was written and not answered yet, by one that lives."""
        writers = [p for p in self.world.processes if p.token == token and p.state != "dead"]
        return bool(token) and token not in self.claimed and bool(writers)

    def moved(self, process: Process) -> None:
        """The folder has just been moved aside."""
        self._may_end(process, "moved aside")
        self.removed()

    def removed(self) -> None:
        """The folder is gone."""
        self.former |= ({self.token} if self.token else set()) | self.claimed | self.overwritten
        self.owner, self.token = None, None
        self.attempts = {}

    def _may_end(self, by: Process, how: str) -> None:
        before = self.owner
        if before is None or before is by or before.state == "dead":
            return
        if before.job[0] == by.job[0] and before.job[1] < by.job[1]:
            return  # Slurm has given it up
        silence = self.world.now - self.beats[before.token]
        assert silence >= LEASE_SECONDS - 1, f"a live owner was {how} after {silence:.0f} s"
        COUNTS["owners that slept too long, taken over"] += 1

    def answered(self, process: Process, token: str, attempt: int) -> None:
        """A claim has been answered well."""
        assert token not in self.overwritten, "two claims have been answered well"
        assert token not in self.claimed
        self.claimed.add(token)
        if token in self.former:
            return  # and was taken over since
        assert token == self.token
        assert self.attempts.setdefault(attempt, token) == token, "two attempts of one number"

    def accepted(self, process: Process) -> None:
        """A write that was begun when all was decided has gone through."""
        assert process.token == self.token, "a superseded process was told that it has written"

    def refused(self, process: Process, error: BaseException) -> None:
        """An owner has been told that it has lost."""
        assert process.token != self.token, f"the owner has lost: {error}"

    def outage(self, seconds: float) -> None:
        """For so long nobody could write: nobody was silent."""
        for process in self.world.processes:
            if process.token in self.beats and not process.is_frozen and process.state == "idle":
                self.beats[process.token] += seconds


class OneOwner(RuleBasedStateMachine):
    """What may happen."""

    @initialize(locks=st.sampled_from(LOCKS))
    def begin(self, locks: str) -> None:
        self.place = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.world = World(self.place, locks)
        self.world.__enter__()
        self.judge = Judge(self.world)
        self.jobs = 0
        COUNTS[f"worlds: {locks}"] += 1

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.in_the_end()
        finally:
            self.world.__exit__()
            shutil.rmtree(self.place, ignore_errors=True)

    def in_the_end(self) -> None:
        """All are dead: a new process takes over within two leases."""
        world = self.world
        for process in world.processes:
            world.kill(process)
        for each in world.machines:
            each.clock = 0.0
        self.jobs += 1
        last = world.start(0, 1, (f"job{self.jobs}", 0))
        for _ in range(3):
            self._claim(last, None)
            before = world.now
            while last.state != "idle":
                self._pass(LEASE_SECONDS / 4)
            assert world.now - before <= 2 * LEASE_SECONDS + 120
            if last.error is None:
                return
            self._pass(LEASE_SECONDS + 1)
        raise AssertionError(f"what the dead have left is not taken over: {last.error}")

    # --- parts

    def _pick(self, number: int, *states: str) -> Process | None:
        able = [p for p in self.world.processes if p.state in states and not p.is_frozen]
        return able[number % len(able)] if able else None

    def _claim(self, process: Process, stop: int | None, fresh: bool = False) -> None:
        def work() -> None:
            process.folder = folder = TrialFolder(self.world.path)  # by the process that uses it
            if fresh and folder.path.exists():
                folder.move_aside()
            (folder.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            folder.claim()
            self.judge.answered(process, folder.token, folder.attempt)

        self._do(process, work, "claim", stop)

    def _write(self, process: Process, doing: str, stop: int | None) -> None:
        judge, folder = self.judge, process.folder
        settled = not judge._is_open(judge.token)

        def work() -> None:
            if doing == "beat":
                before = len(judge.beats), judge.beats.get(folder.token)
                folder.heartbeat()
                if before == (len(judge.beats), judge.beats.get(folder.token)):
                    return  # a warning: it could not be written
            elif doing == "finish":
                folder.finish("done")
            else:
                folder.update(step=1)
            if settled and stop is None:
                judge.accepted(process)

        self._do(process, work, doing, stop)

    def _do(self, process: Process, work: Any, doing: str, stop: int | None) -> None:
        COUNTS[doing] += 1
        self.world.run(process, work, doing, stop)
        self._look_at(process)

    def _look_at(self, process: Process) -> None:
        """Judge how what it did has ended, if it has."""
        error = process.error
        if process.state != "idle" or error is None:
            COUNTS[f"stopped in {process.doing}"] += process.state == "stopped"
            return
        if isinstance(error, LostLease):
            COUNTS["told to have lost"] += 1
            assert process.doing != "claim", error
            self.judge.refused(process, error)
        elif not isinstance(error, UsageError):
            raise error
        elif process.doing == "claim":
            COUNTS["refused a claim"] += 1
            process.token = ""
        if isinstance(error, LostLease):
            process.folder.token = ""

    def _owners(self) -> list[Process]:
        return [p for p in self.world.processes if p.folder.token and p.state == "idle"]

    def _pass(self, seconds: float) -> None:
        """Time passes: who sleeps wakes, who owns beats."""
        world, end = self.world, self.world.now + seconds
        beaten: dict[str, float] = {}
        while True:
            due = [(p.wake, i, p, "wake") for i, p in enumerate(world.due())]
            for number, process in enumerate(self._owners()):
                if not process.is_frozen and process.doing != "finish":
                    token = process.folder.token
                    last = max(self.judge.beats.get(token, 0.0), beaten.get(token, 0.0))
                    due.append((last + HEARTBEAT_SECONDS, number, process, "beat"))
            due.sort(key=lambda each: each[:2])
            if not due or due[0][0] > end:
                break
            when, _, process, what = due[0]
            world.now = max(world.now, when)
            if what == "wake":
                world.go_on(process)
                self._look_at(process)
            else:
                beaten[process.folder.token] = world.now
                self._write(process, "beat", None)
        world.now = end

    # --- rules

    @rule(machine=st.integers(0, len(MACHINES) - 1), namespace=st.integers(1, 2), new=st.booleans())
    def start(self, machine: int, namespace: int, new: bool) -> None:
        if sum(p.state != "dead" for p in self.world.processes) >= 5:
            return
        jobs = [p.job for p in self.world.processes]
        if new or not jobs:
            self.jobs += 1
            job = (f"job{self.jobs}", 0)
        else:  # its job comes back, and Slurm has seen to it that nothing is left, or so it thinks
            job = (jobs[-1][0], max(r for name, r in jobs if name == jobs[-1][0]) + 1)
        self.world.start(machine, namespace, job)

    @rule(number=st.integers(0, 4), stop=STOPS)
    def claim_again(self, number: int, stop: int | None) -> None:
        self.claim(number, stop, False)

    def claim(self, number: int, stop: int | None, fresh: bool) -> None:
        process = self._pick(number, "idle")
        if process is not None and not process.folder.token:
            fresh = fresh and self.world.locks != "flock of each machine"
            self._claim(process, stop, fresh)

    @rule(number=st.integers(0, 4), stop=STOPS, fresh=st.booleans())
    def claim_first(self, number: int, stop: int | None, fresh: bool) -> None:
        self.claim(number, stop, fresh)

    @rule(
        number=st.integers(0, 4),
        stop=STOPS,
        doing=st.sampled_from(["write", "write", "beat", "finish"]),
    )
    def write(self, number: int, stop: int | None, doing: str) -> None:
        owners = [p for p in self._owners() if not p.is_frozen and p.doing != "finish"]
        if owners:
            self._write(owners[number % len(owners)], doing, stop)

    @rule(number=st.integers(0, 4), stop=STOPS)
    def resume(self, number: int, stop: int | None) -> None:
        process = self._pick(number, "stopped")
        if process is not None:
            self.world.go_on(process, stop)
            self._look_at(process)

    @rule(number=st.integers(0, 4), how=st.sampled_from(["freeze", "thaw", "kill", "reboot"]))
    def end(self, number: int, how: str) -> None:
        """A process stands still, or dies, or all of a machine."""
        living = [p for p in self.world.processes if p.state != "dead"]
        if how == "thaw" or not living:
            for process in self.world.processes:
                process.is_frozen = False
            return
        process = living[number % len(living)]
        COUNTS[f"{how}: processes"] += 1
        if how == "freeze":
            process.is_frozen = process.state in ("idle", "asleep")
        elif how == "kill":
            self.world.kill(process)
        else:
            self.world.reboot(number % len(MACHINES))

    @rule(seconds=st.sampled_from([1.0, 31.0, 100.0, 200.0, 400.0]))
    def pass_time(self, seconds: float) -> None:
        self._pass(seconds)

    @rule(
        machine=st.integers(0, len(MACHINES) - 1),
        seconds=st.sampled_from([-3600.0, -200.0, 200.0, 3600.0, 60.0, 120.0, 300.0]),
        late=st.booleans(),
    )
    def disturb(self, machine: int, seconds: float, late: bool) -> None:
        """A clock jumps; or the file server is away: who sleeps may be back before who owns."""
        if seconds in (60.0, 120.0, 300.0):
            self._outage(seconds, late)
        else:
            self.world.machines[machine].clock += seconds
            COUNTS["clocks set"] += 1

    def _outage(self, seconds: float, late: bool) -> None:
        self.world.now += seconds
        self.judge.outage(seconds)
        COUNTS["outages"] += 1
        for process in self.world.due() if late else ():
            self.world.go_on(process)
            self._look_at(process)
        self._pass(1.0)

    @precondition(lambda self: self.world.path.exists())
    @rule(sure=st.sampled_from([False, False, True]))
    def delete(self, sure: bool) -> None:
        if sure:
            shutil.rmtree(self.world.path)
            self.judge.removed()
            COUNTS["folders removed"] += 1


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20000)
    steps = parser.parse_args().steps
    begun = time.process_time()
    check(examples=max(1, steps // 50), steps=50)
    for name, count in sorted(COUNTS.items()):
        print(f"{count:8d}  {name}")
    print(f"{time.process_time() - begun:8.0f}  seconds of the processor; faults: 0")


def check(examples: int, steps: int) -> None:
    """Try so many worlds, each for so many steps at most; raise what may not be."""
    run_state_machine_as_test(
        OneOwner,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


if __name__ == "__main__":
    main()
