"""Upload trials that ran without a network, from their folders: live, again and again, once each.

What is up is asked of W&B: the next ``_step`` of a run is the number of rows that it has. So
nothing is doubled, whoever was killed. ``sync.json`` in the trial's folder remembers what this
machine has sent, so that nobody is asked about trials in which nothing has changed.

Example::

    with Syncer(Path("runs")) as syncer:
        for status in syncer.visit():
            print(status.folder, status.rows, status.note)
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from mlmodeldev.atomic import write_json
from mlmodeldev.errors import UsageError
from mlmodeldev.lease import ProcessLock, owned
from mlmodeldev.secrets import mask, masked
from mlmodeldev.tracking.metadata import read_yaml
from mlmodeldev.tracking.wandb_api import answers
from mlmodeldev.tracking.wandb_rows import RunWriter
from mlmodeldev.tracking.wandb_run_id import choose_run
from mlmodeldev.trial.agent_run import given_run
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.record import read_record

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

MEMORY = "sync.json"
ENDED = ("done", "pruned", "failed")
"""States after which a run is finished; a trial that is started again opens it again."""


@dataclass
class Status:
    """How far one trial is uploaded, after a visit.

    Attributes:
        folder: the trial's.
        run: ``entity/project/id`` where it is known.
        state: of the trial.
        rows: rows in W&B; ``sent``: how many of them this visit sent.
        up: whether W&B has all that there is now.
        final: whether nothing more can come.
        note: what kept it from being uploaded, in words.
    """

    folder: str
    run: str = ""
    state: str = ""
    rows: int = 0
    sent: int = 0
    up: bool = False
    final: bool = False
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)


def trials_to_upload(runs_dir: Path, sweep: str | None = None) -> Iterator[Path]:
    """Yield the folders of trials that are to be in W&B and do not send to it themselves."""
    for file in sorted(runs_dir.glob(f"{sweep or '*'}/*/trial.json")):
        record = read_record(file.parent)
        ours = record.get("wandb_id") and not sends_itself(record)
        begun = (file.parent / "config.yaml").is_file() or record.get("state") == "failed"
        if ours and begun and _is_chosen(file.parent, record):
            yield file.parent


def sends_itself(record: dict[str, Any]) -> bool:
    """Whether the trial is online at the moment, or has sent everything itself."""
    online = record.get("wandb_path") is not None
    return bool(online and (owned(record) or record.get("uploaded")))


def _is_chosen(folder: Path, record: dict[str, Any]) -> bool:
    if record.get("wandb_sweep") or (folder / MEMORY).is_file():
        return True
    try:
        return bool(read_yaml(folder / "config.yaml")["logger"]["wandb"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def awaits_upload(folder: Path, record: dict[str, Any]) -> bool:
    """Return whether W&B is to have a trial and lacks something, as far as its folder tells."""
    if not record.get("wandb_id") or record.get("uploaded"):
        return False
    if not sends_itself(record) and not _is_chosen(folder, record):
        return False
    return _memory(folder).get("seen") != _fingerprint(folder, record, state_of(record))


def state_of(record: dict[str, Any]) -> str:
    """Return the trial's state; a trial that says running and whose process is gone was killed."""
    state = str(record.get("state", "pending"))
    return "killed" if state == "running" and not owned(record) else state


@dataclass
class _OpenRun:
    """A run that is kept open, and the lock that keeps others from it."""

    lock: ProcessLock
    writer: RunWriter | None = None


class Syncer:
    """Uploads the trials of a folder; one process, one client, any number of runs.

    Args:
        runs_dir: holds the sweeps' folders.
        sweep: only this sweep's folder.
        keep_open: hold the runs of living trials open between visits.
    """

    def __init__(self, runs_dir: Path, sweep: str | None = None, keep_open: bool = False) -> None:
        self.runs_dir, self.sweep, self.keep_open = runs_dir, sweep, keep_open
        self._open: dict[Path, _OpenRun] = {}
        self._trouble = False
        self._scratch = tempfile.TemporaryDirectory(prefix="sync-", ignore_cleanup_errors=True)

    def __enter__(self) -> Syncer:
        return self

    def __exit__(self, *_: object) -> None:
        """Close what is open; the runs stay unfinished."""
        for folder in list(self._open):
            self._close(folder)
        self._scratch.cleanup()

    def visit(self) -> list[Status]:
        """Look at every trial once, and upload what is new."""
        folders = {*trials_to_upload(self.runs_dir, self.sweep)}
        for folder in set(self._open) - folders:
            self._forget(folder)  # it went online by itself, or was moved aside
        statuses = []
        for folder in sorted(folders):
            if self._trouble and not answers():  # each would wait for its time-out in vain
                statuses.append(_status(folder))
                statuses[-1].note = "the server does not answer"
                continue
            self._trouble = False
            statuses.append(self.visit_one(folder))
        return statuses

    def visit_one(self, folder: Path) -> Status:
        """Upload what is new in one trial; what goes wrong is in the note."""
        record = read_record(folder)  # before the rows: an end that is seen has all of them
        status, seen = _status(folder, record), _fingerprint(folder, record, state_of(record))
        if _memory(folder).get("seen") == seen and (folder not in self._open or not status.final):
            status.up = True
            return status
        try:
            self._upload(folder, status, seen)
        except Timeout:
            status.note = "another sync has it in hand"
        except Exception as error:  # one trial's trouble is not the others'
            status.note = _words(error)
            self._trouble = not isinstance(error, UsageError)
            self._forget(folder)
        return status

    def _upload(self, folder: Path, status: Status, seen: list[Any]) -> None:
        run = self._open.get(folder) or self._lock(folder)
        state = _state_to_report(status, read_record(folder))
        if run.writer is not None and run.writer.state != state:
            run.writer.close()
            run.writer = None
        if run.writer is None:
            run.writer = RunWriter.open(folder, Path(self._scratch.name), state)
        writer = run.writer
        status.sent, status.run = writer.catch_up(), str(writer.run.path)
        status.rows, status.up = writer.rows, True
        if state or not self.keep_open:
            status.up = self._close(folder)
        if not status.up:
            status.note = "the server did not take it all in time"
            return
        write_json(folder / MEMORY, {"run": status.run, "rows": status.rows, "seen": seen})
        if status.final:
            TrialFolder(folder).update(uploaded=True)
            _mark_offline_files(folder)

    def _lock(self, folder: Path) -> _OpenRun:
        lock = ProcessLock(folder / ".sync.lock")
        lock.acquire(timeout=0)
        return self._open.setdefault(folder, _OpenRun(lock))

    def _close(self, folder: Path) -> bool:
        run = self._open.pop(folder)
        try:
            return run.writer is None or run.writer.close()
        finally:
            run.lock.release()

    def _forget(self, folder: Path) -> None:
        with contextlib.suppress(Exception):
            if folder in self._open:
                self._close(folder)


def report(settings: Settings, folder: TrialFolder) -> None:
    """Tell W&B of a trial that is done already: its run is another, or was never finished."""
    record, given = folder.read(), given_run()
    if settings.logger.wandb is None or given is None:
        return
    if record.get("wandb_id") == given.id and record.get("uploaded"):
        return
    if choose_run(settings, folder, online=True).id != given.id:
        return  # it is another trial's
    folder.update(wandb_path=None, uploaded=False)
    (folder.path / MEMORY).unlink(missing_ok=True)
    with Syncer(folder.path.parents[1]) as syncer:
        status = syncer.visit_one(folder.path)
    if status.note:
        print(f"Weights & Biases: {status.note}; 'python slurm/SlurmTrain.py sync' uploads later")


def _status(folder: Path, record: dict[str, Any] | None = None) -> Status:
    """Return how far a trial is uploaded, without asking W&B."""
    state = state_of(read_record(folder) if record is None else record)
    memory = _memory(folder)
    rows, run = int(memory.get("rows", 0)), str(memory.get("run", ""))
    return Status(str(folder), run, state, rows, final=state in ENDED)


def _memory(folder: Path) -> dict[str, Any]:
    try:
        memory = json.loads((folder / MEMORY).read_text())
    except (OSError, ValueError):
        return {}
    return memory if isinstance(memory, dict) else {}


def _state_to_report(status: Status, record: dict[str, Any]) -> str | None:
    """Return what W&B is told of the trial: its end, or that it waits to go on; None: under way.

    Of a sweep's trial it is not told that it waits: the server would hand it to another agent.
    """
    waits = status.state == "interrupted" and not record.get("wandb_sweep")
    return status.state if status.final or waits else None


def _fingerprint(folder: Path, record: dict[str, Any], state: str) -> list[Any]:
    """Return what must be the same for there to be nothing new."""
    try:
        status = (folder / "metrics.csv").stat()
        size, changed = status.st_size, status.st_mtime_ns
    except OSError:
        size = changed = 0
    end = state if state in (*ENDED, "interrupted") else False
    return [record.get("wandb_id"), record.get("attempts"), end, size, changed]


def _mark_offline_files(folder: Path) -> None:
    """Let ``wandb sync`` skip the client's own copy of what is up: it would double it."""
    for file in folder.glob("wandb/offline-run-*/run-*.wandb"):
        file.with_name(file.name + ".synced").touch()


def _words(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return (
        mask(text)
        if isinstance(error, UsageError)
        else masked(f"{type(error).__name__}: {text}", 300)
    )


def wait(seconds: float, until: Any) -> None:
    """Sleep, in pieces, so that a signal is noticed at once."""
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        time.sleep(0.1)
