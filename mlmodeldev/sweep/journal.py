"""The file that a search's workers share: Optuna's journal, under one lock, mended when torn.

Example::

    journal = Journal(runs / "digits" / ".search")
    with journal.lock:
        study = journal.study("digits", "maximize")

Optuna's own file backend stops for good at a line that a crash or a full disk has torn. Here each
access happens under a lock of the operating system, which is free again when its holder is killed;
a torn end is cut off before anything is read or written after it, and a line that Optuna could not
read, or can make nothing of, is passed over by all readers alike.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.study import StudyDirection

from mlmodeldev.atomic import write_json, writing_to
from mlmodeldev.lease import (
    HEARTBEAT_SECONDS,
    ProcessLock,
    believed,
    new_owner,
    owner_record,
)
from mlmodeldev.sweep.journal_lines import parsed
from mlmodeldev.synced import make_synced, sync_folder

log = logging.getLogger(__name__)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

LOCK_SECONDS = 300.0
"""How long to wait for the lock: reading a long journal on a slow disk is the longest hold."""


class _Lock(ProcessLock):
    """The journal's lock.

    Attributes:
        current: whether this process has read all there is: nobody else can add to it while the
            lock is taken.
    """

    current = False

    def release(self) -> None:
        super().release()
        self.current = self.current and self.is_locked


class Journal:
    """A search's journal.

    Attributes:
        lock: taken around everything that must not mix with what another worker does.
        address: its file, as trials are told it.
    """

    curve_values = 20
    """Of a trial's curve so many go into the journal, for `optuna-dashboard`."""

    def __init__(self, folder: Path) -> None:
        with writing_to(folder):
            make_synced(folder)
        self.path = folder / "journal.log"
        self.address = str(self.path)
        self.lock = _Lock(folder / "lock", timeout=LOCK_SECONDS)
        self._backend: _File | None = None
        self._storage: JournalStorage | None = None
        self._senseless: set[int] = set()  # where lines begin that Optuna can make nothing of

    @property
    def storage(self) -> JournalStorage:
        """The storage, brought up to date; read anew if the file has become shorter."""
        return self._without_senseless(early=False)

    def catch_up(self) -> None:
        """Read what others have written, before the lock is taken, which the rest then wait for.

        Whole lines stay as they are, so that nobody has to stand still for it.
        """
        self._without_senseless(early=True)

    def _without_senseless(self, early: bool) -> JournalStorage:
        """Read, and read anew without a line that Optuna can make nothing of."""
        while True:
            try:
                return self._read(early)
            except Exception:
                line = self._backend.applied if self._backend else None
                if line is None:
                    raise  # it is no line's fault
                log.warning("%s: a line without sense, at byte %d, is passed over", self.path, line)
                self._senseless.add(line)
                self._storage = self._backend = None  # what it has changed is not to be known

    def _read(self, early: bool) -> JournalStorage:
        if self._backend is not None:
            self._backend.applied = None
        if self._backend is None or self._backend.lost():
            if self._backend is not None:
                self._senseless.clear()
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            self._storage = None
            self._backend = _File(self.path, self.lock, self._senseless)
        with self._backend.without_lock() if early else self.lock:
            if self._storage is None:
                self._storage = JournalStorage(self._backend)
            elif not self.lock.current:
                self._storage.get_all_studies()
        return self._storage

    def full_name(self, name: str) -> str:
        """Return a study's name as it is here, where there are this folder's alone."""
        return name

    def study(self, name: str, goal: str) -> int:
        """Return the id of the study of this name, made if there is none."""
        storage = self.storage
        for study in storage.get_all_studies():
            if study.study_name == name:
                return int(study._study_id)
        direction = StudyDirection.MAXIMIZE if goal == "maximize" else StudyDirection.MINIMIZE
        return int(storage.create_new_study([direction], name))

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Write all changes made within in one go: one wait for the disk, all of them or none."""
        _ = self.storage
        assert self._backend is not None
        with self._backend.batch():
            yield


class _File(BaseJournalBackend):
    """Lines of JSON in a file.

    Args:
        path: the file.
        lock: the journal's.
        passed_over: where lines begin that are not given to Optuna.

    Attributes:
        applied: where the line begins that Optuna has and has not asked for more after it.
    """

    def __init__(self, path: Path, lock: _Lock, passed_over: Collection[int] = ()) -> None:
        self._path, self._lock, self._passed_over = path, lock, passed_over
        self.applied: int | None = None
        lock.current = False  # this one has read nothing yet
        self._count = self._offset = 0  # what has been read: entries, bytes
        self._batched: list[dict[str, Any]] | None = None
        self._reads_early = False

    @contextlib.contextmanager
    def without_lock(self) -> Iterator[None]:
        """Let what is read within be read without the lock."""
        self._reads_early = True
        try:
            yield
        finally:
            self._reads_early = False

    def lost(self) -> bool:
        """Whether the file holds less than what was read of it."""
        if self._lock.current:
            return False  # read since the lock was taken
        try:
            return self._path.stat().st_size < self._offset
        except FileNotFoundError:
            return self._offset > 0

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        self._batched = []
        try:
            yield
            logs, self._batched = self._batched, None
            self.append_logs(logs)
        finally:
            self._batched = None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if self._batched is not None:
            self._batched.extend(logs)
            return
        text = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in logs)
        with self._lock, writing_to(self._path), self._path.open("ab+") as file:
            is_new = not os.fstat(file.fileno()).st_size
            _mend(file)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
            if is_new:
                sync_folder(self._path.parent)
            self._lock.current = False

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        self.applied = None
        if log_number_from != self._count:
            self._count = self._offset = 0
        elif self._lock.current:
            return  # Optuna asks some twenty times a trial
        with contextlib.nullcontext() if self._reads_early else self._lock:
            entries = list(self._new())
            self._lock.current = self._lock.is_locked
        skipped = log_number_from - (self._count - len(entries))
        for self.applied, entry in entries[max(0, skipped) :]:
            yield entry
        self.applied = None

    def _new(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the entries that were not read yet, each with where its line begins."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # torn, and cut off before the next is written
                begin, entry = self._offset, parsed(line)
                if entry is None and self._reads_early:
                    break  # it may be still on its way: whether it is damaged the lock will tell
                self._offset += len(line)
                if entry is None:
                    log.warning("%s: a damaged line is passed over", self._path)
                elif begin not in self._passed_over:
                    self._count += 1
                    yield begin, entry


def _mend(file: Any) -> None:
    """Cut off what a killed writer has left after the last whole line."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return
    begin = _line_begin(file, size)
    file.seek(begin)
    if parsed(file.read()) is not None:
        file.write(b"\n")  # whole but for its end
        return
    log.warning("%s: the torn last line is cut off", file.name)
    file.truncate(begin)


def _line_begin(file: Any, end: int) -> int:
    """Return where the line begins that goes up to this place."""
    while end > 0:
        begin = max(0, end - 65536)
        file.seek(begin)
        newline = file.read(end - begin).rfind(b"\n")
        if newline >= 0:
            return int(begin + newline + 1)
        end = begin
    return 0


class Leases:
    """The leases of all workers, and this process's own.

    Attributes:
        name: this worker's name: machine, PID namespace, process id and its start.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._owner = new_owner()
        self.name = "{host}-{namespace}-{pid}-{started}".format(**self._owner)
        self._renewed = float("-inf")

    def renew(self) -> None:
        """Write this worker's lease if it is time."""
        if time.monotonic() - self._renewed < HEARTBEAT_SECONDS:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._file(self.name), owner_record(self._owner))
        self._renewed = time.monotonic()

    def give_up(self) -> None:
        """Remove this worker's lease."""
        self._renewed = float("-inf")
        with contextlib.suppress(OSError):
            self._file(self.name).unlink(missing_ok=True)

    def alive(self, name: str | None) -> bool | None:
        """Whether the worker of this name still lives; None: not to be known yet."""
        if name is None:
            return False
        if name == self.name:
            return True
        try:
            record = json.loads(self._file(name).read_text())
        except (OSError, ValueError, RecursionError):
            return False
        return isinstance(record, dict) and believed(record)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"
