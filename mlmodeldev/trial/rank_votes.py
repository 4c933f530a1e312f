"""Whether all ranks of a trial hang: each rank's watcher says so in the trial's folder.

The first rank waits for the others in every collective operation; while one of them computes, or
waits for a slow disk, nothing hangs. So before the first rank's watcher ends the trial it asks
those of the others, by a file. One that does not answer is dead, or its node is.

Example::

    votes = RankVotes(folder, attempt=2, rank=1, size=4)
    votes.is_open()
    votes.answer(hangs=True)
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

ANSWER_SECONDS = 10.0
"""How long an answer is waited for, and how old it may be by this machine's clock."""
_END = "end"


class RankVotes:
    """The question of the first rank's watcher, and the others' answers.

    Args:
        folder: the trial's.
        attempt: of the trial.
        rank: whose watcher this is.
        size: number of ranks.
    """

    def __init__(self, folder: Path, attempt: int, rank: int, size: int) -> None:
        self.folder, self.attempt, self.rank, self.size = folder, attempt, rank, size
        self._question = folder / f".hung-{attempt}"
        self._opened_at: float | None = None
        self._answers = 0
        self._seen: dict[int, tuple[str, float]] = {}
        if rank == 0:
            for left in folder.glob(".hung-*"):
                left.unlink(missing_ok=True)

    # --- the others

    def is_open(self) -> bool:
        """Return whether the first rank hangs and asks."""
        return self.size > 1 and self.rank > 0 and self._question.exists()

    def is_decided(self) -> bool:
        """Return whether the first rank's watcher has ended the trial: all ranks end at once.

        Slurm repeats a request to end a step that takes its time, and would hit the next start.
        """
        if not self.is_open():
            return False
        try:
            return self._question.read_text() == _END
        except OSError:
            return False

    def leave(self) -> None:
        """Answer no more: this rank has ended."""
        with contextlib.suppress(OSError):
            self._file(self.rank).unlink(missing_ok=True)

    def answer(self, hangs: bool) -> None:
        """Say whether this rank does; again at each tick."""
        self._answers += 1
        with contextlib.suppress(OSError):
            file = self._file(self.rank)
            partial = file.with_name(f"{file.name}.part")
            partial.write_text(json.dumps([hangs, self._answers]))
            partial.replace(file)

    # --- the first

    def all_hang(self) -> bool:
        """Ask, and look at the answers; return whether no other rank says that it works.

        Called at each tick while this rank hangs; the answers take their time.
        """
        if self.size == 1:
            return True
        now = time.monotonic()
        if self._opened_at is None:
            self._opened_at = now
            with contextlib.suppress(OSError):
                self._question.touch()
        list(self.folder.iterdir())  # a network file system forgets what was missing
        return all(self._hangs(rank, now) for rank in range(1, self.size))

    def _hangs(self, rank: int, now: float) -> bool:
        assert self._opened_at is not None
        try:
            text = self._file(rank).read_text()
            hangs = bool(json.loads(text)[0])
        except (OSError, ValueError, LookupError, TypeError):
            text, hangs = "", True
        before, since = self._seen.get(rank, ("", self._opened_at))
        if text != before:
            self._seen[rank] = (text, now)
            return hangs
        return hangs if text and hangs else now - since > ANSWER_SECONDS

    def decide(self) -> None:
        """Let the others end."""
        if self.size > 1:
            with contextlib.suppress(OSError):
                self._question.write_text(_END)

    def wait_for_others(self) -> None:
        """Wait until they have ended, some seconds at most."""
        deadline = time.monotonic() + ANSWER_SECONDS / 2
        ranks = range(1, self.size)
        while any(self._file(r).exists() for r in ranks) and time.monotonic() < deadline:
            time.sleep(0.05)

    def withdraw(self) -> None:
        """Ask no more: this rank goes on, or is ended."""
        if self._opened_at is not None:
            self._opened_at = None
            self._seen.clear()
            for rank in range(1, self.size):
                self._file(rank).unlink(missing_ok=True)
            self._question.unlink(missing_ok=True)

    def _file(self, rank: int) -> Path:
        return self.folder / f".hung-{self.attempt}-{rank}"
