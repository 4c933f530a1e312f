"""A search's rows in PostgreSQL, in place of the journal: for more workers than a file serves.

Example, with ``controller: {storage: "postgresql://lab@db.example/searches"}`` in the sweep file::

    database = Database.of_folder("postgresql://lab@db.example/searches", folder)
    with database.lock:
        study = database.study(database.full_name("digits"), "maximize")

It is Optuna's own storage, under one lock, as the journal is: PostgreSQL's advisory lock, which is
free again when its holder dies. A worker is connected only while it has the lock or waits for it,
so a thousand that train need no thousand connections, and no trial's process inherits one. The
password is libpq's affair: ``~/.pgpass``, ``PGPASSFILE`` or ``PGPASSWORD``; a URL has none.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.study import StudyDirection

from mlmodeldev.atomic import write_json, writing_to
from mlmodeldev.errors import UsageError
from mlmodeldev.sweep.extensions import SCHEME, storage_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.storages import BaseStorage, RDBStorage
    from sqlalchemy import Connection

DRIVERS = ("psycopg", "psycopg2")
"""The first that is installed is taken."""
NOTE = "database.json"
"""Beside the trials: by which name the database holds this folder's search."""
WAIT_SECONDS = 300
"""For the lock, and for a database that is away for a moment."""
_PAUSE_SECONDS = 2.0
_MOMENTARY = ("too many clients", "starting up", "shutting down", "remaining connection slots")


class Database:
    """A search's rows; used as `mlmodeldev.sweep.journal.Journal` is.

    Args:
        url: ``postgresql://USER@HOST[:PORT]/NAME``.
        token: what keeps the searches of several folders apart.

    Attributes:
        lock: taken around everything that must not mix with what another worker does.
        address: the URL, as trials are told it.

    Raises:
        UsageError: a URL with a password or of another kind; no driver is installed.
    """

    curve_values = 4
    """Of a trial's curve so many are kept: each is a transaction of its own."""

    def __init__(self, url: str, token: str) -> None:
        if problem := storage_problem(url):
            raise UsageError(f"controller.storage: {problem}")
        self.address, self.token = url, token
        self.lock = _Lock(url, token, self._disconnect)
        self._rows: RDBStorage | None = None
        self._storage: BaseStorage | None = None
        self._ids: dict[str, int] = {}

    @classmethod
    def of_folder(cls, url: str, folder: Path) -> Database:
        """Return the database of a sweep's folder, which is given a name in it once."""
        return cls(url, _token(folder))

    @property
    def storage(self) -> BaseStorage:
        """Optuna's storage; what has ended is read once."""
        if self._storage is None:
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            self._rows = optuna.storages.RDBStorage(_driver_url(self.address))
            self._storage = optuna.storages.get_storage(self._rows)
        return self._storage

    def _disconnect(self) -> None:
        if self._rows is not None:
            self._rows.engine.dispose()

    def catch_up(self) -> None:
        """Do nothing: under the lock only what is new is read."""

    def full_name(self, name: str) -> str:
        """Return a study's name as it is here, where other folders have theirs too."""
        return f"{name}-{self.token}"

    def study(self, name: str, goal: str) -> int:
        """Return the id of the study of this name, made if there is none."""
        if name not in self._ids:
            try:
                number = self.storage.get_study_id_from_name(name)
            except KeyError:
                way = StudyDirection.MAXIMIZE if goal == "maximize" else StudyDirection.MINIMIZE
                number = self.storage.create_new_study([way], name)
            self._ids[name] = int(number)
        return self._ids[name]

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Write what is written within; a row ends with its last write, and before it may again."""
        yield


class _Lock:
    """PostgreSQL's advisory lock of one search; may be taken again by who has it.

    Args:
        url: of the database.
        token: of the search.
        on_release: closes what else is connected.
    """

    def __init__(self, url: str, token: str, on_release: Callable[[], None]) -> None:
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        # the session's end is the lock's: nothing stays open while trials are forked
        self._engine = create_engine(_driver_url(url), poolclass=NullPool)
        self._url, self._on_release = url, on_release
        digest = hashlib.blake2b(token.encode(), digest_size=8).digest()
        self._key = int.from_bytes(digest, "big", signed=True)
        self._connection: Connection | None = None
        self._depth = 0
        self._was_there = False

    @property
    def is_locked(self) -> bool:
        """Whether this object holds the lock."""
        return self._depth > 0

    def __enter__(self) -> _Lock:
        if not self._depth:
            self._connection = self._wait()
            self._was_there = True
        self._depth += 1
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from sqlalchemy.exc import SQLAlchemyError

        self._depth -= 1
        if not self._depth and self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None
            self._on_release()
        if isinstance(error, (SQLAlchemyError, optuna.exceptions.StorageInternalError)):
            message = f"{self._url}: {_words(error)}; the same command goes on where it was"
            raise UsageError(message) from None

    def _wait(self) -> Connection:
        from sqlalchemy import text
        from sqlalchemy.exc import SQLAlchemyError

        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            connection = None
            try:
                connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                connection.execute(text(f"SET lock_timeout = '{WAIT_SECONDS}s'"))
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": self._key})
                return connection
            except SQLAlchemyError as error:
                if connection is not None:
                    connection.close()
                passes = self._was_there or any(each in str(error) for each in _MOMENTARY)
                if not passes or time.monotonic() > deadline:
                    raise UsageError(f"{self._url}: {_words(error)}") from None
                time.sleep(_PAUSE_SECONDS)


def _driver_url(url: str) -> str:
    """Return the URL with the driver that is installed.

    Raises:
        UsageError: none is.
    """
    from sqlalchemy import make_url

    made = make_url(url)
    wanted = made.drivername.partition("+")[2]
    drivers = (wanted,) if wanted else DRIVERS
    there = next((name for name in drivers if importlib.util.find_spec(name)), None)
    if there is None:
        raise UsageError(
            f"controller.storage: {SCHEME} needs {drivers[0]}: pip install '{drivers[0]}[binary]'"
        )
    return made.set(drivername=f"{SCHEME}+{there}").render_as_string(hide_password=False)


def _words(error: BaseException) -> str:
    """Return the first line of an error that is not SQLAlchemy's own."""
    cause = getattr(error, "orig", None) or error.__cause__ or error
    lines = [line.strip() for line in str(getattr(cause, "orig", None) or cause).splitlines()]
    return next((line for line in lines if line), type(error).__name__)


def _token(folder: Path) -> str:
    """Return what a folder's search is called by; the first worker makes it up."""
    file = folder / NOTE
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        draft = folder / f".{NOTE}.{secrets.token_hex(8)}"
        write_json(draft, {"version": 1, "token": secrets.token_hex(8)})
        with contextlib.suppress(FileExistsError):
            os.link(draft, file)  # whole, and the first one's
        draft.unlink()
    try:
        token = json.loads(file.read_text())["token"]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{file}: is damaged; without it the search begins anew") from None
    return str(token)
