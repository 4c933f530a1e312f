"""The process that watches a trial, and ends it when it hangs.

A child of the trial (of each of its ranks), small and without heavy imports, that looks at the
beats (`mlmodeldev.trial.beats`) once a second and counts its own ticks: while a node, a job or a
shell's job is paused it stands still as well. Past the limit (`mlmodeldev.trial.patience`) it
writes the stacks of all threads to the trial's folder, sees whether the trial moves after all,
freezes its processes, writes the record and kills them. Nothing is saved: the newest checkpoint
counts.

`mlmodeldev.trial.watch` starts it, and hands over what it needs by standard input.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from mlmodeldev.trial.beats import BYTES, EXPECTED, NAMES, Phase, present
from mlmodeldev.trial.hang import Hang, stacks_name, write_record
from mlmodeldev.trial.patience import START_SECONDS, Patience
from mlmodeldev.trial.processes import Processes
from mlmodeldev.trial.rank_votes import RankVotes
from mlmodeldev.trial.stacks import stacks_of

TICK_SECONDS = 1.0
_TICKS_TO_MOVE = 2
_MOST_OF_A_LINE = 1000
_DEAF_TO = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGPIPE", "SIGXCPU")
"""They are the trial's; this process ends with it."""


class Watchdog:
    """Watch one rank of a trial.

    Args:
        job: as `mlmodeldev.trial.watch.begin_watch` makes it.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.pid, self.rank = int(job["pid"]), int(job["rank"])
        self.folder, self.attempt = Path(job["folder"]), int(job["attempt"])
        self.cells = memoryview(mmap.mmap(job["beats"], BYTES)).cast("Q")
        former = {int(phase): seconds for phase, seconds in job["former"].items()}
        self.patience = Patience(job["seconds"], former)
        self.processes = Processes(self.pid, os.getpid())
        self.votes = RankVotes(self.folder, self.attempt, self.rank, job["size"])
        self.tick_seconds = min(TICK_SECONDS, job["seconds"] / 20)
        self.stacks = ""
        self._reported = (0, 0)
        self._end = select.poll()
        with contextlib.suppress(OSError):  # it has ended by now
            self._end.register(os.pidfd_open(self.pid), select.POLLIN)

    def run(self) -> None:
        """Watch until the trial has ended, by itself or by this."""
        last = time.monotonic()
        while not self._ended_within(self.tick_seconds):
            now = time.monotonic()
            if self._look(min(now - last, self.tick_seconds)):
                return
            last = now

    def _ended_within(self, seconds: float) -> bool:
        return bool(self._end.poll(1000 * seconds)) or os.getppid() != self.pid

    def _look(self, elapsed: float) -> bool:
        """Take a tick; return whether the trial was ended."""
        phase, count = present(self.cells)
        expected = self.cells[EXPECTED + phase] / 1000
        overdue = self.patience.tick(
            phase, count, elapsed, lambda: self.processes.activity(elapsed), expected
        )
        if self.votes.is_decided():
            self.processes.freeze()
            self.processes.kill()
            self.votes.leave()
            return True
        if self.votes.is_open():
            self.votes.answer(overdue)
        if not overdue:
            self.votes.withdraw()
            self.stacks = ""
            return False
        if self._reported == (phase, count):
            return False  # somebody sits at the terminal, and was told
        usual = max(self.patience.longest.get(phase, 0.0), expected)
        if count > 1:  # shorter times are not seen from here
            usual = max(usual, self.tick_seconds)
        limit = self.patience.limit(phase, count, expected)
        hang = Hang(
            NAMES[Phase(phase)], self.patience.lasted, usual, limit, self.rank, self.attempt
        )
        return self._judge(hang, (phase, count))

    def _judge(self, hang: Hang, beat: tuple[int, int]) -> bool:
        """Write the stacks of what is overdue, and end it if it is to be; return whether it was."""
        self.stacks = self.stacks or self._write_stacks()
        if self.rank:
            # the first rank's watcher decides: what that rank alone does, the others wait for
            if hang.seconds < START_SECONDS:
                return False
        elif not self.votes.all_hang():
            return False
        if self._ended_within(_TICKS_TO_MOVE * self.tick_seconds):
            return True
        if present(self.cells) != beat:
            self._say(f"{hang.line(self.stacks)}; it has gone on since")
            return False
        if self.job["only_say"]:
            self._reported = beat
            self._say(f"{hang.line(self.stacks)}; Ctrl-C, or kill {self.pid}, ends it")
            return False
        self._end_trial(hang)
        return True

    def _write_stacks(self) -> str:
        name = stacks_name(self.attempt, self.rank)
        with contextlib.suppress(OSError):
            (self.folder / name).write_text(stacks_of(self.processes.all(), self.job["memory"]))
        return name

    def _end_trial(self, hang: Hang) -> None:
        with contextlib.suppress(OSError):
            os.setsid()  # whoever ends the trial's group when it dies lets this finish
        self.processes.freeze()
        line = hang.line(self.stacks)
        try:
            if self.rank == 0:
                line = write_record(self.folder, self.job["token"], hang, self.stacks)
        except Exception as error:  # another attempt's, or a full disk: it hangs all the same
            line = f"{line}; not recorded: {error}"
        self._say(f"{line}; ended, the newest checkpoint counts")
        self.votes.decide()
        self.processes.kill()
        self.votes.wait_for_others()
        self.votes.withdraw()

    def _say(self, line: str) -> None:
        """Print a line where the trial prints, unless that is a pipe that nobody empties."""
        text = f"watchdog: {line}\n"[:_MOST_OF_A_LINE]
        with contextlib.suppress(OSError):
            if select.select([], [2], [], 0)[1]:
                os.write(2, text.encode())


def main() -> None:
    """Watch the trial that standard input names."""
    for name in _DEAF_TO:
        signal.signal(signal.Signals[name], signal.SIG_IGN)
    job = json.load(sys.stdin)
    sys.path[:] = job["path"]  # for what is imported when something hangs
    Watchdog(job).run()
