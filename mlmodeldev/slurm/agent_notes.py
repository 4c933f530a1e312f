"""Notes of an agent on disk, of its trials and the sweep: it comes back to them after anything.

A run's note belongs to one agent at a time, by a lease as a trial's folder does; taking over is
renaming the file, which one process wins. A job that was interrupted has the first right to its
own note; where nobody comes back for it, another agent of the sweep takes it after a while.

Example::

    notes = AgentNotes(Path("runs/ab12cd34"), job="1234_5")
    notes.write(AgentNote(run="x7", params={"optimizer.lr": 0.1}))
    note = notes.take_over()            # own first, then what others have left
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import TEMPORARY_SUFFIX, write_json
from mlmodeldev.lease import new_owner, owned, owner_record, seconds_since_written
from mlmodeldev.trial.agent_run import RUN_ID

RESERVED_SECONDS = 900.0
"""How long a trial waits for the job that was interrupted in it before others may take it."""


SWEEP_FILE = "sweep.json"
"""Among the notes: the sweep's configuration, as the server last gave it."""


def keep_configuration(folder: Path, configuration: Mapping[str, Any]) -> None:
    """Keep a sweep's configuration in its folder, for an agent that finds no server."""
    file = folder / ".agents" / SWEEP_FILE
    with contextlib.suppress(OSError):  # it is a help, and no condition
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, dict(configuration))


def kept_configuration(folder: Path, job: str | None) -> dict[str, Any] | None:
    """Return a sweep's configuration if this job has runs of it to go on with, else None."""
    notes = AgentNotes(folder, job)
    if job is None or not any(note.get("job") == job for _, note in notes.records()):
        return None
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = json.loads((notes.folder / SWEEP_FILE).read_text())
        return content if isinstance(content, dict) else None
    return None


@dataclass(frozen=True)
class AgentNote:
    """A run of the sweep that an agent has begun and not ended."""

    run: str
    params: dict[str, Any] = field(default_factory=dict)


class AgentNotes:
    """The notes of a sweep's agents.

    Args:
        sweep: the sweep's folder.
        job: what names this agent again after a requeue; a Slurm job's number.
    """

    def __init__(self, sweep: Path, job: str | None) -> None:
        self.folder = sweep / ".agents"
        self.job = job
        self._active: set[str] = set()  # runs that this very process has under way
        self._owner = new_owner()
        self._me = job or "{host}-{pid}-{token:.8}".format(**self._owner)

    def write(self, note: AgentNote, active: bool = True) -> None:
        """Write, or renew, the note of a run; not active: it waits for this job to come back."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self._active.add if active else self._active.discard)(note.run)
        record = {**asdict(note), "job": self.job, "updated": time.time()}
        record |= owner_record(self._owner)
        if not active:
            record |= {"state": "interrupted", "owner": None}
        write_json(self._file(note.run), record)

    def remove(self, run: str) -> None:
        """Forget a run that has ended, and what agents that were killed had half written of it."""
        self._active.discard(run)
        self._file(run).unlink(missing_ok=True)
        for half in self.folder.glob(f".*.{run}.json.*{TEMPORARY_SUFFIX}"):
            half.unlink(missing_ok=True)

    def claim(self, run: str) -> bool:
        """Take a run that the server gives; not while another has it, or will come back for it."""
        for file, note in self.records():
            if note["run"] != run or file == self._file(run):
                continue
            if owned(note, file) or not _left(file, note):
                return False
            file.unlink(missing_ok=True)
        return True

    def params_of(self, run: str) -> dict[str, Any] | None:
        """Return the values of a run as an agent has noted them, or None."""
        notes = (note for _, note in self.records() if note["run"] == run)
        return next((dict(note["params"]) for note in notes), None)

    def take_over(self) -> AgentNote | None:
        """Return a run to go on with: this job's own, or one that nobody comes back for."""
        for own in (True, False):
            for file, note in self.records():
                if note["run"] in self._active:
                    continue
                mine = self.job is not None and note.get("job") == self.job
                free = (mine or _left(file, note)) and not _live(file, note, mine)
                if mine == own and free:
                    own_note = AgentNote(str(note["run"]), dict(note["params"]))
                    if self._rename(file, own_note):
                        return own_note
        return None

    def _rename(self, file: Path, note: AgentNote) -> bool:
        path = self._file(note.run)
        if file != path:
            try:
                file.rename(path)
            except OSError:
                return False  # another was quicker
        self.write(note)
        return True

    def _file(self, run: str) -> Path:
        return self.folder / f"{self._me}.{run}.json"

    def records(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield the notes of all agents of the sweep, with their files."""
        for file in sorted(self.folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, RecursionError):
                note = json.loads(file.read_text())
                if _is_note(note):
                    yield file, note


def _is_note(note: Any) -> bool:
    """Whether it has the shape of a note: what else lies there must end no agent."""
    if not isinstance(note, dict):
        return False
    run, params, updated = (note.get(name) for name in ("run", "params", "updated"))
    named = isinstance(run, str) and re.fullmatch(RUN_ID, run) is not None
    return named and isinstance(params, dict) and isinstance(updated, int | float)


def _live(file: Path, note: dict[str, Any], mine: bool) -> bool:
    # the same job is here again: its former self is gone, whatever the lease says
    return not mine and owned(note, file)


def _left(file: Path, note: dict[str, Any]) -> bool:
    """Whether nobody will come back: without a job at once, else after a while."""
    return not note.get("job") or (seconds_since_written(file) or 0) > RESERVED_SECONDS
