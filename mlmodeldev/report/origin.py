"""Where a sweep's results come from: code, packages, data; and why trials failed.

Example::

    origin(sweep_state, entries)["commits"]       # {"1a2b3c4": 24}
    Failures(sweep_state).of(entry, None)["lines"]    # the last lines that it printed
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.secrets import mask, masked
from mlmodeldev.slurm.commands.logs import JobLogs

if TYPE_CHECKING:
    from mlmodeldev.slurm.submission import TrialJob
    from mlmodeldev.slurm.sweep_state import SweepState
    from mlmodeldev.slurm.trial_entries import TrialEntry

LOG_LINES = 25
_LOG_BYTES = 20_000
MOST_LOGS = 50
"""So many failed trials show their last words; the others' are in their folders."""
_CHANGE_BYTES = 30_000
MOST_CHANGES = 20


class Changes:
    """How trials' code differed from its commit: each text once, numbered."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number_of(self, folder: Path) -> int | None:
        """Return the number of a trial's changes; None: none, or the page has enough of them."""
        file = folder / "changes.diff"
        try:
            with file.open("rb") as opened:
                content = opened.read(2 * _CHANGE_BYTES)  # a key across the end is seen whole
        except OSError:
            return None
        text = masked(content.decode(errors="replace"), _CHANGE_BYTES)
        text += "\n…\n" if len(content) > _CHANGE_BYTES else ""
        if not text.strip():
            return None
        if text not in self.texts:
            if len(self.texts) == MOST_CHANGES:
                return None
            self.texts.append(text)
        return self.texts.index(text)


class Failures:
    """Why trials failed, one after the other: their jobs are gone through once, for all."""

    def __init__(self, sweep_state: SweepState) -> None:
        self._sweep_state, self._shown = sweep_state, 0

    @cached_property
    def _jobs(self) -> JobLogs:
        return JobLogs(self._sweep_state)

    def of(self, entry: TrialEntry, job: TrialJob | None) -> dict[str, Any]:
        """Return a trial's reason, its last lines, and the file that has them all.

        The traceback says most, then what the trial printed, then what its job did. Only the first
        `MOST_LOGS` trials have lines; of the others it is said that they are left out.
        """
        reason = entry.record.get("reason") or (job.note if job else "") or "no reason recorded"
        why = {"reason": mask(str(reason))}
        if self._shown == MOST_LOGS:
            return {**why, "left_out": True}
        for file in self._files(entry):
            if lines := _last_lines(file):
                self._shown += 1
                return {**why, "file": str(file), "lines": lines}
        return why

    def _files(self, entry: TrialEntry) -> Iterator[Path]:
        yield from (entry.folder / "traceback.txt", entry.folder / "log.txt")
        yield from self._jobs.of(entry.trial.id)


def _last_lines(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, 2)
            opened.seek(max(0, size - _LOG_BYTES))
            text = opened.read().decode(errors="replace")
    except OSError:
        return ""
    return mask("\n".join(text.rstrip().splitlines()[-LOG_LINES:]))


def origin(sweep_state: SweepState, entries: Sequence[TrialEntry]) -> dict[str, Any]:
    """Return what is needed to get the same results: file, command, commits, versions, data."""
    records = [entry.record for entry in entries if entry.record]
    try:
        text = sweep_state.file.read_text(errors="replace")
    except OSError:
        text = ""
    words = ["--sweep", str(sweep_state.file), *sweep_state.user_overrides]
    return {
        "file": str(sweep_state.file),
        "text": mask(text),
        "digest": hashlib.sha256(text.encode()).hexdigest()[:16],
        "command": mask(shlex.join(["python", "slurm/SlurmTrain.py", *words])),
        "folder": str(sweep_state.folder),
        "commits": _counts(_commit(record) for record in records),
        "software": _counts(_software(record) for record in records),
        "data": _counts(name for record in records for name in _data(record)),
        "machines": _counts(filter(None, (_machine(entry.folder) for entry in entries))),
    }


def _counts(texts: Iterable[str]) -> dict[str, int]:
    """Return how many trials say what, most first."""
    return dict(Counter(filter(None, texts)).most_common(20))


def _commit(record: Mapping[str, Any]) -> str:
    sha = str(record.get("sha") or "")[:12]
    return f"{sha} with changes" if sha and record.get("dirty") else sha


def _software(record: Mapping[str, Any]) -> str:
    software = record.get("software") or {}
    names = {"python": "Python", "torch": "torch", "library": "mlmodeldev"}
    return ", ".join(f"{names[key]} {software[key]}" for key in names if software.get(key))


def _data(record: Mapping[str, Any]) -> list[str]:
    inputs = (record.get("data") or {}).get("inputs") or {}
    return [f"{Path(file).name} {digest}" for file, digest in inputs.items()]


def _machine(folder: Path) -> str:
    try:
        machine = json.loads((folder / "environment.json").read_text())["machine"]
        processors = ", ".join(machine.get("gpus") or []) or str(machine.get("cpu") or "")
        return f"{processors}; processes {machine.get('ranks')}, threads {machine.get('threads')}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
