"""Whether a trial has one owner, whatever processes, machines, clocks and file systems do.

Hypothesis draws what happens in a small world (`tests.reliability.world`); after each write of the
record, and after each answer, it is judged whether that may be. The long form tells what it did::

    python -m tests.reliability.one_owner --steps 20000
"""

from __future__ import annotations

import argparse
import logging
import time

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.reliability.play import COUNTS, Play
from tests.reliability.world import LOCKS, MACHINES

STOPS = st.one_of(st.none(), st.integers(0, 24))
"""How many places a process passes before it stops; None: all."""
PLACES = st.integers(0, len(MACHINES) - 1)


class OneOwner(RuleBasedStateMachine):
    """What may happen."""

    @initialize(locks=st.sampled_from(LOCKS))
    def begin(self, locks: str) -> None:
        self.play = Play(locks)
        COUNTS[f"worlds: {locks}"] += 1
        self.start_and_claim(0, 1, True, None)

    def teardown(self) -> None:
        if hasattr(self, "play"):
            try:
                self.play.in_the_end()
            finally:
                self.play.close()

    @rule(machine=PLACES, namespace=st.integers(1, 2), new=st.booleans(), stop=STOPS)
    def start_and_claim(self, machine: int, namespace: int, new: bool, stop: int | None) -> None:
        living = [p for p in self.play.world.processes if p.state != "dead"]
        if len(living) >= 5:
            self.play.world.kill(next((p for p in living if not p.folder.token), living[0]))
        jobs = [p.job for p in self.play.world.processes]
        if new or not jobs:
            self.play.jobs += 1
            job = (f"job{self.play.jobs}", 0)
        else:  # its job comes back, and Slurm has seen to it that nothing is left, or so it thinks
            job = (jobs[-1][0], max(r for name, r in jobs if name == jobs[-1][0]) + 1)
        self.play.claim(self.play.world.start(machine, namespace, job), stop)

    @rule(number=st.integers(0, 4), stop=STOPS)
    def claim_again(self, number: int, stop: int | None) -> None:
        self.claim(number, stop, False)

    def claim(self, number: int, stop: int | None, fresh: bool) -> None:
        process = self.play.pick(number, "idle")
        if process is not None and not process.folder.token:
            fresh = fresh and self.play.world.locks != "flock of each machine"
            self.play.claim(process, stop, fresh)

    @rule(number=st.integers(0, 4), stop=STOPS, fresh=st.booleans())
    def claim_first(self, number: int, stop: int | None, fresh: bool) -> None:
        self.claim(number, stop, fresh)

    @rule(
        number=st.integers(0, 4),
        stop=STOPS,
        doing=st.sampled_from(["write", "write", "beat", "beat", "finish"]),
    )
    def write(self, number: int, stop: int | None, doing: str) -> None:
        owners = [p for p in self.play.owners() if not p.is_frozen and p.doing != "finish"]
        if owners:
            self.play.write(owners[number % len(owners)], doing, stop)

    @rule(number=st.integers(0, 4), stop=STOPS)
    def resume(self, number: int, stop: int | None) -> None:
        process = self.play.pick(number, "stopped")
        if process is not None:
            self.play.go_on(process, stop)

    @rule(number=st.integers(0, 4), how=st.sampled_from(["freeze", "thaw", "kill", "reboot"]))
    def end(self, number: int, how: str) -> None:
        """A process stands still, or dies, or all of a machine."""
        living = [p for p in self.play.world.processes if p.state != "dead"]
        if how == "thaw" or not living:
            for process in self.play.world.processes:
                process.is_frozen = False
            return
        process = living[number % len(living)]
        COUNTS[f"{how}: processes"] += 1
        if how == "freeze":
            process.is_frozen = process.state in ("idle", "asleep")
        elif how == "kill":
            self.play.world.kill(process)
        else:
            self.play.world.reboot(number % len(MACHINES))

    @rule(seconds=st.sampled_from([1.0, 31.0, 200.0, 400.0, 400.0]))
    def pass_time(self, seconds: float) -> None:
        self.play.pass_time(seconds)

    @rule(
        machine=PLACES,
        seconds=st.sampled_from([-3600.0, -200.0, 200.0, 3600.0, 60.0, 120.0, 300.0]),
        late=st.booleans(),
    )
    def disturb(self, machine: int, seconds: float, late: bool) -> None:
        """A clock jumps; or the file server is away: who sleeps may be back before who owns."""
        if seconds in (60.0, 120.0, 300.0):
            self.play.outage(seconds, late)
        else:
            self.play.world.machines[machine].clock += seconds
            COUNTS["clocks set"] += 1

    @precondition(lambda self: self.play.world.path.exists())
    @rule(sure=st.sampled_from([False, False, True]))
    def delete(self, sure: bool) -> None:
        if sure:
            self.play.remove_folder()


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20000)
    steps = parser.parse_args().steps
    logging.getLogger("mlmodeldev").setLevel(logging.ERROR)  # what owners meet, by the thousand
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
