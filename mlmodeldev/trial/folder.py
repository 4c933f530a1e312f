"""A trial's folder and the record of its state, ``trial.json``.

The folder is the only truth: launchers, status, resume and skipping what is done all read it.
One process at a time owns it (`mlmodeldev.lease`). Each attempt has a token: who finds another's
token in the record, or no record, has lost the trial and writes no more.

Example::

    folder = TrialFolder.open(settings)          # refuses another configuration's folder
    folder.claim()                               # raises UsageError while another process owns it
    folder.update(state="done", metric={"name": "val/accuracy", "value": 0.97})
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlmodeldev.atomic import remove_leftovers, write_text, writing_to
from mlmodeldev.errors import TrialInterrupted, UsageError
from mlmodeldev.lease import (
    HEARTBEAT_SECONDS,
    LEASE_SECONDS,
    LostLease,
    ProcessLock,
    lease_end,
    liveness,
    owned,
    owner_record,
    watch_owner,
)
from mlmodeldev.secrets import mask
from mlmodeldev.settings.renamed import current_configuration
from mlmodeldev.synced import make_synced, sync_folder
from mlmodeldev.trial import signals
from mlmodeldev.trial.agent_run import entries_of_run
from mlmodeldev.trial.configuration import (
    MAY_CHANGE,
    MAY_CHANGE_IN_SWEEPS,
    first_difference,
)
from mlmodeldev.trial.fenced import take, write_fenced
from mlmodeldev.trial.place import folder_of
from mlmodeldev.trial.record_types import faults, parse_record, read_text

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

log = logging.getLogger(__name__)

State = Literal["pending", "running", "interrupted", "done", "failed", "pruned"]

LOCK_SECONDS = 60.0
"""How long to wait for the record's lock, which is held for the moment of a change."""

OWNERS_LOCK_SECONDS = 10.0
"""How long the trial's owner waits for it, before it writes without: who sleeps with the lock taken
must not keep a heartbeat from being written."""

RECORD_VERSION = 2
"""Of ``trial.json``: 2 has the owner's token; records without a version are read as before."""


class TrialFolder:
    """The folder of one trial and its record.

    Args:
        path: the folder.
        lock_seconds: to wait for the record's lock; None: `LOCK_SECONDS`.

    Attributes:
        path: ``<runs_dir>/<sweep>/<trial>``.
        id: the trial's identity (its folder's name).
        attempt: number of this attempt, from 1; 0 before `claim`.
        token: what tells this attempt from all others; empty before `claim`.
        measure: returns entries that the record gets whenever the lease is renewed, and at the
            attempt's end: then it is called with True.
    """

    def __init__(self, path: Path, lock_seconds: float | None = None) -> None:
        self.path = path
        self.id = path.name
        self.attempt, self.token = 0, ""
        self.measure: Callable[[bool], dict[str, Any]] = lambda _: {}
        self._renewed = time.monotonic()
        self._settings: dict[str, Any] = {}
        patience = LOCK_SECONDS if lock_seconds is None else lock_seconds
        self._lock = ProcessLock(path / ".record.lock", timeout=patience)

    @classmethod
    def open(cls, settings: Settings) -> TrialFolder:
        """Make or find the folder of these settings.

        Raises:
            UsageError: it can't be written, or it holds a trial of another configuration.
        """
        path = folder_of(settings)
        folder = cls(path)
        if settings.artefacts.fresh and path.exists():
            folder.move_aside()
        folder._prepare(settings)
        return folder

    def begin_anew(self, settings: Settings) -> Path:
        """Move what is here aside and make the folder anew; return where the former is."""
        aside = self.move_aside()
        self._prepare(settings)
        return aside

    def move_aside(self) -> Path:
        """Give the folder a hidden name, ``.NAME.NUMBER``; refuse while a live process owns it."""
        self._wait_for_owner()
        with self._locked():
            self._refuse_if_owned(self.read())
            number = 1
            while (aside := self.path.with_name(f".{self.path.name}.{number}")).exists():
                number += 1
            self.path.rename(aside)
            sync_folder(aside.parent)
        return aside

    def _prepare(self, settings: Settings) -> None:
        """Make the folder; refuse one of another configuration."""
        import yaml

        with writing_to(self.path):
            make_synced(self.path / "checkpoints")
        file = self.path / "config.yaml"
        wanted = settings.model_dump()
        if file.is_file():
            try:
                stored = yaml.safe_load(file.read_text())
            except (yaml.YAMLError, ValueError, RecursionError):
                raise UsageError(
                    f"{file}: is no configuration; artefacts.fresh=true begins anew"
                ) from None
            stored = current_configuration(stored or {}, wanted["model"])
            by_hand = settings.artefacts.sweep == type(settings.artefacts)().sweep
            ignored = MAY_CHANGE if by_hand else MAY_CHANGE_IN_SWEEPS
            difference = first_difference(stored, wanted, ignored=ignored)
            if difference:
                raise UsageError(
                    f"{self.path}: this folder holds a trial with {difference}; name another"
                    " folder by artefacts.trial=NAME, or begin anew by artefacts.fresh=true"
                )
        self._settings = wanted
        if not file.is_file():
            self._write_configuration()

    def _write_configuration(self) -> None:
        import yaml

        if self._settings:
            text = yaml.safe_dump(self._settings, sort_keys=False, allow_unicode=True)
            write_text(self.path / "config.yaml", text)

    # --- the record

    def read(self) -> dict[str, Any]:
        """Return the record; an empty one where there is none yet."""
        file = self.path / "trial.json"
        try:
            record = parse_record(read_text(file))
        except FileNotFoundError:
            return {}
        if record is None:
            raise UsageError(
                f"{file}: is no record of a trial; move it away, the trial goes on from its"
                " checkpoints"
            )
        version = record.get("version", 1)
        if isinstance(version, int) and version > RECORD_VERSION:
            raise UsageError(
                f"{file}: was written by a newer mlmodeldev (version {version} of the"
                f" record, this one reads up to {RECORD_VERSION}); go on with that one"
            )
        if wrong := faults(record):
            raise UsageError(
                f"{file}: {next(iter(wrong.values()))}; correct it, or move the file away: the"
                " trial goes on from its checkpoints"
            )
        return record

    def update(self, **changes: Any) -> dict[str, Any]:
        """Change some entries of the record; the file is replaced whole.

        Raises:
            LostLease: another attempt owns the trial now.
        """
        with self._locked():
            changes = {name: _masked(name, value) for name, value in changes.items()}
            seen = self.read()
            record = {**seen, **changes, "updated": time.time()}
            write_fenced(self.path / "trial.json", record, lambda: self._check(seen))
            return record

    def _check(self, seen: Mapping[str, Any]) -> None:
        """Look whether this process may write still; one that is no owner changes what it saw."""
        self.check_owner()
        if not self.token and self.read() != seen:
            raise UsageError(f"{self.path}: another process has changed the record meanwhile")

    @contextlib.contextmanager
    def unchanged(self, seen: Mapping[str, Any]) -> Iterator[bool]:
        """Let no attempt begin meanwhile; yield whether the record is still as it was read."""
        with self._locked():
            yield self.read() == seen

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep others from the record; refuse who owns it no more."""
        from filelock import Timeout

        with writing_to(self.path):
            self.check_owner()  # before the lock, which would make a folder anew that is gone
            try:
                self._lock.acquire(OWNERS_LOCK_SECONDS if self.token else LOCK_SECONDS)
            except Timeout:
                if not self.token:
                    raise UsageError(
                        f"{self._lock.path}: another process has kept this lock for"
                        f" {self._lock.timeout:.0f} s"
                    ) from None
                log.warning("%s: kept by another process; written without it", self._lock.path)
                yield  # the owner needs no lock against those who would take over (`fenced`)
                return
            try:
                self.check_owner()
                yield
            finally:
                self._lock.release()

    # --- ownership

    def claim(self, patient: bool = True) -> dict[str, Any]:
        """Become the trial's owner: a new attempt, state ``running``.

        Args:
            patient: watch an owner that can't be looked at from here until it is sure whether it
                lives (`mlmodeldev.lease`); else the time in its record decides, at once.

        Raises:
            UsageError: a live process owns it.
            TrialInterrupted: a signal came while the owner was watched.
        """
        if patient:
            self._wait_for_owner()
        with self._locked():
            record = self.read()
            self._refuse_if_owned(record, patient)
            run = entries_of_run(self.path, record)
            remove_leftovers(self.path)
            remove_leftovers(self.path / "checkpoints")
            self._write_configuration()
            attempt = int(record.get("attempts", 0)) + 1
            ours = owner_record()
            claimed = {
                **record,
                "id": self.id,
                "version": RECORD_VERSION,
                "sweep": self.path.parent.name,
                **({} if "created" in record else {"created": time.time()}),
                "reason": None,
                "attempts": attempt,
                "token": ours["owner"]["token"],
                "begun": time.time(),
                **ours,
                "uploaded": False,
                **run,
                "updated": time.time(),
            }
            if not take(self.path / "trial.json", self.read, record, claimed):
                raise UsageError(f"{self.path}: another process has begun this trial just now")
            self.attempt, self.token = attempt, claimed["token"]
            self._renewed = time.monotonic()
            return claimed

    def heartbeat(self) -> None:
        """Renew the lease; what keeps it from being written is tried again until it runs out.

        Raises:
            LostLease: another attempt owns the trial now.
            UsageError: it could not be renewed for nearly as long as it lasts.
        """
        try:
            self.update(lease=lease_end(), **self.measure(False))
            self._renewed = time.monotonic()
        except (UsageError, OSError) as error:
            if time.monotonic() - self._renewed > LEASE_SECONDS - 2 * HEARTBEAT_SECONDS:
                raise
            log.warning("the lease was not renewed, it is tried again: %s", error)

    def check_owner(self) -> None:
        """Read whether the trial still belongs to this attempt.

        Raises:
            LostLease: another attempt owns it now, or its record is gone.
        """
        if not self.token:
            return
        record = self.read()
        if not record:
            raise LostLease(f"{self.path}: its record is gone; this attempt owns it no more")
        attempts, owner = record.get("attempts"), record.get("owner") or {}
        if attempts != self.attempt:
            raise LostLease(f"{self.path}: attempt {attempts} has taken over")
        # an older version leaves the record's token alone, but not the owner's
        tokens = {record.get("token"), owner.get("token") if owner else self.token}
        if tokens != {self.token}:
            raise LostLease(f"{self.path}: another attempt has begun here anew")

    def finish(self, state: State, reason: str | None = None, **changes: Any) -> None:
        """Write the state that this attempt ends in and give the trial up."""
        record = self.read()
        seconds = record.get("seconds", 0.0) + time.time() - record.get("begun", time.time())
        ended = {"state": state, "reason": reason, "owner": None, "lease": None}
        self.update(**ended, seconds=round(seconds, 3), **self.measure(True), **changes)

    def mark_failed(self, state: State, reason: str | None) -> None:
        """Write how an attempt ended that had no time to say so itself; others are left alone."""
        if not (self.path / "trial.json").is_file():
            return
        with self._locked():
            record = self.read()
            if record.get("state") in ("running", "pending") and liveness(record) is False:
                self.update(state=state, reason=reason, owner=None, lease=None)

    def _wait_for_owner(self) -> None:
        """Return when it is sure whether the trial's owner lives."""
        announced = False

        def on_wait() -> None:
            nonlocal announced
            if signals.requested():
                raise TrialInterrupted(
                    f"interrupted by {signals.requested()} while another attempt was watched"
                )
            if not announced:
                announced = True
                host = (self.read().get("owner") or {}).get("host")
                print(
                    f"{self.path}: ran on host {host}; watching for {LEASE_SECONDS:.0f} s whether"
                    " it still does",
                    file=sys.stderr,
                    flush=True,
                )

        watch_owner(self.read, on_wait)

    def _refuse_if_owned(self, record: Mapping[str, Any], patient: bool = True) -> None:
        """Refuse what a live process owns; who has been patient takes no doubtful one either."""
        if (liveness(record) if patient else owned(record)) is False:
            return
        owner = record["owner"]
        raise UsageError(
            f"{self.path}: this trial is running already (host {owner.get('host')}, process"
            f" {owner.get('pid')}); stop it first, or wait"
        )


def _masked(name: str, value: Any) -> Any:
    """Return an entry without keys; a single word is a digest, unless it is a reason."""
    is_text = isinstance(value, str) and (" " in value or name == "reason")
    return mask(value) if is_text else value
