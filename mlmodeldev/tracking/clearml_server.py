"""Calls of ClearML's API and uploads to its file store, by the session of its own client.

``Task.init`` is not used: it replaces functions of the whole process (argparse, matplotlib,
``torch.save``, ``os.fork``), belongs to one task at a time, and takes many seconds to close.

Example::

    server = Server()
    task = server.call("tasks", "create", name="lr=0.003", type="training")["id"]
    server.send_events([{"type": "training_stats_scalar", "task": task, ...}])
    url = server.upload(Path("epoch-0003.png"), "digits/lr.ab12/metrics/cka/epoch-0003.png")
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlmodeldev.errors import UsageError

MOST_EVENTS = 500
"""Sent in one request; the server stores as many at once."""

_OFFLINE = "CLEARML_OFFLINE_MODE"
_HTTP: dict[str, Any] = {
    # the client's own 240 tries take hours, and it waits for ever while a server is in maintenance
    **{f"retries.{what}": 2 for what in ("total", "connect", "read", "redirect", "status")},
    "retries.backoff_factor": 0.5,
    "retries.backoff_max": 5.0,
    "wait_on_maintenance_forever": False,
}
_SECONDS, _SECONDS_OF_LARGE = (5.0, 20.0), (5.0, 60.0)
"""To connect, and to wait for a sign of the server."""


class ServerError(Exception):
    """The server refuses a call.

    Attributes:
        code: HTTP status.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def check_package() -> None:
    """See that ClearML can be imported, without importing it.

    Raises:
        UsageError: it is not installed.
    """
    name = "clearml"
    there = sys.modules[name] if name in sys.modules else importlib.util.find_spec(name)
    if there is None:
        raise UsageError(
            "logger=clearml: the package clearml is not installed; pip install 'clearml>=2.1'"
        )


def offline_by_environment() -> bool:
    """Return whether ClearML's own variable says that nothing is to be sent."""
    return os.environ.get(_OFFLINE, "").strip().lower() not in ("", "0", "false", "no", "off")


@functools.cache
def _client() -> Any:
    """Import the client; return its modules' names that are used here.

    Raises:
        UsageError: a package is not installed.
    """
    check_package()
    try:
        with _argparse_as_it_was():
            from clearml import Task, backend_api, config
            from clearml.backend_api.session import defs
            from clearml.storage import StorageManager
    except ModuleNotFoundError as error:
        raise UsageError(
            f"logger=clearml: the package {error.name} is not installed; pip install 'clearml>=2.1'"
        ) from None
    names = argparse.Namespace(
        config=config.config_obj, defs=defs, storage=StorageManager, task=Task
    )

    class QuickSession(backend_api.Session):  # type: ignore[misc]
        _session_initial_timeout = _session_timeout = _SECONDS
        _write_session_timeout = _SECONDS_OF_LARGE

    names.session = QuickSession
    return names


@contextlib.contextmanager
def _argparse_as_it_was() -> Iterator[None]:
    """Put back the functions of argparse that importing ClearML replaces, for all parsers."""
    parser = argparse.ArgumentParser
    before = dict(vars(parser))
    try:
        yield
    finally:
        for name, value in dict(vars(parser)).items():
            if name not in before:
                delattr(parser, name)
            elif before[name] is not value:
                setattr(parser, name, before[name])


def is_configured() -> bool:
    """Return whether there are keys of a server, in the environment or in ``clearml.conf``.

    Raises:
        UsageError: a package is not installed.
    """
    client = _client()
    if client.defs.ENV_AUTH_TOKEN.get():
        return True
    pairs = (
        (client.defs.ENV_ACCESS_KEY, "api.credentials.access_key"),
        (client.defs.ENV_SECRET_KEY, "api.credentials.secret_key"),
    )
    return all(entry.get() or client.config.get(place, None) for entry, place in pairs)


def fetch_task(task_id: str) -> Any:
    """Return a task as an object of ClearML's own.

    Raises:
        Exception: whatever the client raises where it can't be had.
    """
    return _client().task.get_task(task_id=task_id)


def server_answers(seconds: float) -> bool:
    """Return whether the server answers within a time."""
    import requests

    host = _client().session.get_api_server_host()
    try:
        requests.get(f"{host}/debug.ping", timeout=seconds)
    except requests.RequestException:
        return False
    return True


class Server:
    """An open session; making one logs in.

    Raises:
        Exception: whatever the client raises where that fails.
    """

    def __init__(self) -> None:
        client = _client()
        tree = client.config.get("api.http")  # in place: set_overrides reads all files once more
        for name, value in _HTTP.items():
            tree.put(name, value)
        self._session = client.session()

    def call(self, service: str, action: str, **content: Any) -> dict[str, Any]:
        """Make a call; return what is answered.

        Raises:
            ServerError: the server refuses it.
            requests.RequestException: there is no answer.
        """
        answer = self._session.send_request(service, action, method="post", json=content)
        return _data(answer, f"{service}.{action}")

    def send_events(self, events: Sequence[dict[str, Any]]) -> None:
        """Send events; the server keeps one for each task, metric, variant and iteration.

        Raises:
            ServerError: not all of them are taken.
        """
        for first in range(0, len(events), MOST_EVENTS):
            part = events[first : first + MOST_EVENTS]
            answer = self._session.send_request(
                "events",
                "add_batch",
                method="post",
                headers={"Content-Type": "application/json-lines"},
                data="\n".join(json.dumps(event, allow_nan=False) for event in part),
            )
            answered = _data(answer, "events.add_batch")
            if answered.get("errors"):
                raise ServerError(400, f"events.add_batch: {answered.get('errors_info')}")

    def upload(self, file: Path, key: str) -> str:
        """Keep a file in the store of files under a key; return its address.

        Raises:
            Exception: whatever the store's client raises where it can't be kept.
        """
        client = _client()
        target = f"{self._session.get_files_server_host()}/{quote(key)}"
        client.storage.upload_file(str(file), target, retries=1)
        return target


def _data(answer: Any, name: str) -> dict[str, Any]:
    try:
        content = answer.json()
        meta, data = content["meta"], content.get("data") or {}
    except (ValueError, KeyError, TypeError):
        raise ServerError(answer.status_code, f"{name}: HTTP status {answer.status_code}") from None
    if answer.status_code != 200:
        raise ServerError(answer.status_code, f"{name}: {meta.get('result_msg')}")
    return dict(data)
