"""Where MLflow keeps runs: the store, its experiment, and the run that a sweep's trials lie below.

Trials begin at the same time, and each wants the database, the experiment and the sweep's run to
be there. What must be made once is made under a lock, and is found again by a name of its own.

Example::

    store = open_store(settings)
    parent = sweep_run(store, sweep_folder)         # the same for all trials of the sweep
    run = find_run(store, key) or store.client.create_run(store.experiment)
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.atomic import write_json
from mlmodeldev.errors import UsageError
from mlmodeldev.lease import ProcessLock
from mlmodeldev.secrets import masked
from mlmodeldev.settings.tracking_address import tracking_address

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

DATABASE, ARTIFACTS = "mlflow.db", ".mlflow-artifacts"
"""In the folder of all runs, where nothing else is set."""
KEY = "mlmodeldev.key"
"""Tag of a run: by it the run is found again whose making was cut off before its id was noted."""
SWEEP_NOTE = ".mlflow.json"
"""In a sweep's folder: the key of its run."""

_OCCASION = "(raised as a result of"
_PASSWORD = re.compile(r"//[^/@\s]*@")
_LOCK_SECONDS = 60.0
_BUSY_SECONDS = 20.0  # as long as MLflow waits for another's change
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # what matters is raised, and told once, without tracebacks
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # a server that is away must not hold a trial up for the client's own quarter of an hour
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass(frozen=True)
class Store:
    """An open store.

    Attributes:
        client: an ``mlflow.MlflowClient``.
        experiment: id of the experiment that runs are filed under.
    """

    client: Any
    experiment: str


def import_client(chosen: str = "logger=mlflow") -> Any:
    """Return MLflow's client class; the user's environment decides what is not set here.

    Args:
        chosen: what wants it, for the message.

    Raises:
        UsageError: the package is not installed.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow.tracking import MlflowClient
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{chosen}: the package {error.name} is not installed; pip install 'mlflow>=3.17'"
        ) from None
    return MlflowClient


def address(settings: Settings) -> str:
    """Return the server's or database's address: the settings', the environment's, or a file's.

    Raises:
        UsageError: the environment's is none.
    """
    chosen = settings.logger.mlflow
    if chosen is not None and chosen.uri:
        return chosen.uri
    return default_address(_runs_dir(settings))


def default_address(runs_dir: Path) -> str:
    """Return the address that the environment names, else that of the file among the runs.

    Raises:
        UsageError: the environment's is none.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if not given:
        return f"sqlite:///{_encoded(runs_dir / DATABASE)}"
    if given.startswith("databricks"):
        return given
    try:
        tracking_address(given)
    except ValueError as error:
        if "password" not in str(error):
            raise UsageError(f"MLFLOW_TRACKING_URI: {error}") from None
    return given


def open_store(settings: Settings) -> Store:
    """Return the store, made where it is not there yet, with its experiment.

    Raises:
        Exception: whatever the client raises where it can't be had.
    """
    chosen = settings.logger.mlflow
    assert chosen is not None
    return open_at(address(settings), _runs_dir(settings), chosen.experiment)


def open_at(uri: str, runs_dir: Path, experiment: str) -> Store:
    """Return the store at an address, made where it is not there yet, with its experiment.

    Raises:
        Exception: whatever the client raises where it can't be had.
    """
    is_file = uri.startswith("sqlite")
    with _made_once(runs_dir / f".{DATABASE}.lock") if is_file else contextlib.nullcontext():
        if is_file:
            _check_file(uri)
        client = import_client()(tracking_uri=uri)
        place = (runs_dir / ARTIFACTS).as_uri() if is_file else None
        return Store(client, _experiment(client, experiment, place))


def database_file(uri: str) -> Path | None:
    """Return the file of a SQLite database; None: it is another, or lies in memory."""
    from sqlalchemy.engine import make_url

    name = make_url(uri).database if uri.startswith("sqlite") else None
    return Path(name) if name and name != ":memory:" else None


def reason(error: Exception) -> str:
    """Return what is the matter in a line of at most 300 characters, passwords and keys masked."""
    return masked(_PASSWORD.sub("//***@", f"{type(error).__name__}: {cause(error)}"), 300)


def cause(error: Exception) -> str:
    """Return the line of an error that says what is the matter.

    Of a database SQLAlchemy tells first what it was about to do.
    """
    lines = [line for line in str(error).strip().splitlines() if not line.startswith(_OCCASION)]
    return next(iter(lines), "").partition(" with exception ")[0]


def _encoded(path: Path) -> str:
    """Return a path as a database's address may hold it."""
    special = {"%": "%25", "?": "%3F", "#": "%23"}
    return "".join(special.get(character, character) for character in str(path))


def _check_file(uri: str) -> None:
    """Open and lock a database file once: MLflow tries for minutes to open one that is none.

    Raises:
        sqlite3.Error: it can't be opened or written, or another has it for too long.
    """
    name = database_file(uri)
    if name is None:
        return
    name.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(name, timeout=_BUSY_SECONDS)) as file:
        file.execute("BEGIN IMMEDIATE")
        file.execute("ROLLBACK")


def _experiment(client: Any, name: str, place: str | None) -> str:
    there = client.get_experiment_by_name(name)
    if there is None:
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except Exception:  # another trial was first, on another machine
            there = client.get_experiment_by_name(name)
            if there is None:
                raise
    if there.lifecycle_stage == "deleted":
        raise RuntimeError(f"experiment {name!r} is deleted; restore it, or name another one")
    return str(there.experiment_id)


def find_run(store: Store, key: str) -> Any:
    """Return the run that has a key; None: there is none."""
    runs = store.client.search_runs([store.experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
    return runs[0] if runs else None


def new_key() -> str:
    """Return a key that no other run has."""
    return secrets.token_hex(16)


def sweep_run(store: Store, folder: Path) -> str:
    """Return the id of the run that all trials of a sweep lie below; the first one makes it.

    It is a heading: it has no rows, and is finished from the beginning.

    Args:
        store: where it lies.
        folder: the sweep's; its name is the run's.
    """
    note = folder / SWEEP_NOTE
    with _made_once(folder / f"{SWEEP_NOTE}.lock"):
        try:
            key = str(json.loads(note.read_text())["key"])
        except (OSError, ValueError, KeyError, TypeError):
            key = new_key()
            write_json(note, {"key": key})
        run = find_run(store, key)
        if run is None:
            tags = {KEY: key, "mlmodeldev.sweep": folder.name}
            run = store.client.create_run(store.experiment, tags=tags, run_name=folder.name)
            store.client.set_terminated(run.info.run_id, "FINISHED")
        return str(run.info.run_id)


def _made_once(path: Path) -> ProcessLock:
    return ProcessLock(path, timeout=_LOCK_SECONDS)


def _runs_dir(settings: Settings) -> Path:
    return Path(settings.artefacts.runs_dir).expanduser().absolute()
