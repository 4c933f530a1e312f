"""A trial that hangs: what is written of it, and in which state it is left.

Example::

    hang = Hang(phase="a training step", seconds=63.2, usual=0.2, limit=54.6, rank=0, attempt=2)
    write_record(folder, token, hang, stacks="hung-2.txt")
    hang_of(read_record(folder))              # the entry, where the last attempt ended so
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

MOST_HANGS = 3
"""Attempts in a row that hang without a new checkpoint, and the trial has failed."""
_LOCK_SECONDS = 5.0


class Hang(NamedTuple):
    """What hung.

    Attributes:
        phase: in words, as `mlmodeldev.trial.beats.NAMES` has them.
        seconds: for how long it lasted.
        usual: how long it took at most before; 0: it was not seen.
        limit: how long it might have taken.
        rank: that was seen to hang.
        attempt: of the trial.
    """

    phase: str
    seconds: float
    usual: float
    limit: float
    rank: int
    attempt: int

    def line(self, stacks: str) -> str:
        """Return the reason in a line.

        Args:
            stacks: name of the file that has them.
        """
        before = f"took {self.usual:.1f} s at most before" if self.usual else "was not seen before"
        rank = f" of rank {self.rank}" if self.rank else ""
        return (
            f"hung: {self.phase}{rank} lasted {self.seconds:.0f} s, and {before}; stacks of all"
            f" threads: {stacks}"
        )


def stacks_name(attempt: int, rank: int) -> str:
    """Return the name of the file that has a rank's stacks."""
    return f"hung-{attempt}-rank-{rank}.txt" if rank else f"hung-{attempt}.txt"


def write_record(folder: Path, token: str, hang: Hang, stacks: str) -> str:
    """Write into the record of a frozen trial that it was interrupted, and by what; return that.

    One that was done already, and hung afterwards, stays done. After `MOST_HANGS` attempts without
    a new checkpoint it has failed.

    Args:
        token: of the attempt.
        stacks: name of the file that has them.

    Raises:
        LostLease: another attempt owns the trial.
        UsageError: the record can't be written.
    """
    from mlmodeldev.atomic import write_json
    from mlmodeldev.errors import UsageError
    from mlmodeldev.trial.folder import TrialFolder

    trial = TrialFolder(folder, lock_seconds=_LOCK_SECONDS)
    trial.attempt, trial.token = hang.attempt, token
    record = trial.read()
    entry = {**hang._asdict(), "stacks": stacks, **_repetition(folder, record)}
    changes: dict[str, Any] = {"hang": entry}
    reason = hang.line(stacks)
    if record.get("state") == "running":
        failed = entry["times"] >= MOST_HANGS
        if failed:
            reason = f"{MOST_HANGS} attempts in a row hung, and came to no new checkpoint; {reason}"
        state = "failed" if failed else "interrupted"
        changes |= {"state": state, "reason": reason, "owner": None, "lease": None}
    try:
        trial.update(**changes)
    except UsageError:
        # The frozen trial itself may have the record's lock, and nobody else can then.
        trial.check_owner()
        write_json(folder / "trial.json", {**record, **changes})
    return reason


def _repetition(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    newest = max((file.name for file in (folder / "checkpoints").glob("step-*.ckpt")), default="")
    before = record.get("hang") or {}
    again = before.get("checkpoint") == newest
    return {"checkpoint": newest, "times": int(before.get("times", 0)) + 1 if again else 1}


def hang_of(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a record tells of a hang, where its last attempt was ended for it."""
    hang = record.get("hang")
    is_last = isinstance(hang, dict) and hang.get("attempt") == record.get("attempts")
    return hang if is_last and record.get("state") != "running" else None


def goes_on(record: Mapping[str, Any]) -> bool:
    """Return whether a trial that was ended for a hang is to be started again at once."""
    return hang_of(record) is not None and record.get("state") != "failed"


def former_hangs(record: Mapping[str, Any]) -> dict[int, float]:
    """Return how long a phase was let hang in the attempt before, for `Patience`."""
    from mlmodeldev.trial.beats import NAMES

    hang = record.get("hang") or {}
    with contextlib.suppress(TypeError, ValueError, AttributeError, KeyError):
        return {int(p): float(hang["seconds"]) for p, n in NAMES.items() if n == hang["phase"]}
    return {}
