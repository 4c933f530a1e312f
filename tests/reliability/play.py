"""What processes do with one trial's folder, and what may not come of it.

Example::

    play = Play("flock")
    owner, other = play.start(machine=0), play.start(machine=1)
    play.claim(owner)
    play.claim(other)
    play.pass_time(300)                 # the other is refused, for the owner beats
"""

from __future__ import annotations

import collections
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.lease import HEARTBEAT_SECONDS, LEASE_SECONDS, LostLease
from mlmodeldev.trial.folder import TrialFolder
from tests.reliability.world import Process, World

MEMORY = Path("/dev/shm")
COUNTS: collections.Counter[str] = collections.Counter()
"""What was done, by its name."""


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


class Play:
    """What processes may do in a world, judged.

    Args:
        locks: one of `LOCKS`.
    """

    def __init__(self, locks: str) -> None:
        self.place = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.world = World(self.place, locks)
        self.world.__enter__()
        self.judge = Judge(self.world)
        self.jobs = 0

    def close(self) -> None:
        """End all."""
        self.world.__exit__()
        shutil.rmtree(self.place, ignore_errors=True)

    def in_the_end(self) -> None:
        """All are dead: a new process takes over within two leases."""
        world = self.world
        for process in world.processes:
            world.kill(process)
        for each in world.machines:
            each.clock = 0.0
        last = self.start(0)
        for _ in range(3):
            self.claim(last, None)
            before = world.now
            while last.state != "idle":
                self.pass_time(LEASE_SECONDS / 4)
            assert world.now - before <= 2 * LEASE_SECONDS + 120
            if last.error is None:
                return
            self.pass_time(LEASE_SECONDS + 1)
        raise AssertionError(f"what the dead have left is not taken over: {last.error}")

    def start(self, machine: int, namespace: int = 1) -> Process:
        """Start a process in a job of its own."""
        self.jobs += 1
        return self.world.start(machine, namespace, (f"job{self.jobs}", 0))

    def pick(self, number: int, *states: str) -> Process | None:
        """Return one of those in these states, if any is."""
        able = [p for p in self.world.processes if p.state in states and not p.is_frozen]
        return able[number % len(able)] if able else None

    def claim(self, process: Process, stop: int | None = None, fresh: bool = False) -> None:
        """Let a process claim the trial, or begin it anew; who has to wait sleeps then."""

        def work() -> None:
            process.folder = folder = TrialFolder(self.world.path)  # by the process that uses it
            if fresh and folder.path.exists():
                folder.move_aside()
            (folder.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            folder.claim()
            self.judge.answered(process, folder.token, folder.attempt)

        self._do(process, work, "claim", stop)

    def write(self, process: Process, doing: str, stop: int | None = None) -> None:
        """Let an owner ``beat``, ``write`` or ``finish``."""
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
        self.look_at(process)

    def look_at(self, process: Process) -> None:
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

    def go_on(self, process: Process, stop: int | None = None) -> None:
        """Let one that was stopped go on."""
        self.world.go_on(process, stop)
        self.look_at(process)

    def remove_folder(self) -> None:
        """Somebody removes the trial's folder."""
        shutil.rmtree(self.world.path)
        self.judge.removed()
        COUNTS["folders removed"] += 1

    def owners(self) -> list[Process]:
        """Return who has claimed the trial, was not told to have lost, and does nothing else."""
        return [p for p in self.world.processes if p.folder.token and p.state == "idle"]

    def pass_time(self, seconds: float) -> None:
        """Time passes: who sleeps wakes, who owns beats."""
        world, end = self.world, self.world.now + seconds
        beaten: dict[str, float] = {}
        while True:
            due = [(p.wake, i, p, "wake") for i, p in enumerate(world.due())]
            for number, process in enumerate(self.owners()):
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
                self.go_on(process)
            else:
                beaten[process.folder.token] = world.now
                self.write(process, "beat", None)
        world.now = end

    def outage(self, seconds: float, late: bool) -> None:
        """The file server is away; ``late``: who sleeps is back before who owns."""
        self.world.now += seconds
        self.judge.outage(seconds)
        COUNTS["outages"] += 1
        for process in self.world.due() if late else ():
            self.go_on(process)
        self.pass_time(1.0)
