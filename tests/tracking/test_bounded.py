"""Requests end in time and in size, and a key goes to its own host only."""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.tracking import bounded
from mlmodeldev.tracking.bounded import Unreachable, post_json
from mlmodeldev.tracking.wandb_api import Refused, query_server
from mlmodeldev.trial import signals
from tests.wandb.odd_answers import ODD, raw

AUTH = ("api", "secret")


class OddServer:
    """Answers each request as it is told to, and remembers what came."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []
        self.answer: Callable[[Any], None] = ODD["empty"]
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: OddServer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server_state.seen.append((self.path, self.headers.get("Authorization")))
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client has had enough
            self.server_state.answer(self)

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[OddServer]:
    made = OddServer()
    yield made
    made.close()


@pytest.mark.parametrize("odd", ["headers without end", "body without end"])
def test_an_answer_that_trickles_for_ever_is_left_in_time(server: OddServer, odd: str):
    server.answer = ODD[odd]
    begun = time.monotonic()
    with pytest.raises(Unreachable, match="answer"):
        post_json(server.url, {}, AUTH, 1.0)
    assert time.monotonic() - begun < 3


def test_an_endless_answer_is_left_before_it_fills_the_memory(server: OddServer):
    server.answer = ODD["endless body"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Unreachable, match="more than 16 MiB"):
        post_json(server.url, {}, AUTH, 30.0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "KiB"


def test_answers_that_never_end_keep_no_number_of_threads(server: OddServer, monkeypatch):
    monkeypatch.setattr(bounded, "MOST_LEFT_BEHIND", 2)
    monkeypatch.setattr(bounded, "_left_behind", [])
    server.answer = ODD["headers without end"]
    for _ in range(4):
        with pytest.raises(Unreachable):
            post_json(server.url, {}, AUTH, 0.3)
    assert len(server.seen) == 2


def test_a_key_is_not_handed_on_to_another_host(server: OddServer):
    other = OddServer()
    try:
        target = other.url.replace("127.0.0.1", "localhost")
        server.answer = lambda handler: raw(handler, b"", 307, Location=f"{target}/graphql")
        status, _ = post_json(server.url, {}, AUTH, 10.0)
        assert (status, other.seen) == (307, [])
    finally:
        other.close()


def test_a_redirect_on_the_same_host_is_followed(server: OddServer):
    def once(handler: Any) -> None:
        if handler.path == "/new":
            raw(handler, b"{}")
        else:
            raw(handler, b"", 308, Location="/new")

    server.answer = once
    assert post_json(f"{server.url}/old", {}, AUTH, 10.0) == (200, b"{}")
    assert [path for path, key in server.seen if key] == ["/old", "/new"]


REFUSALS = {"status 401": UsageError, "status 403": UsageError, "errors text": Refused}
UNBOUNDED = ("endless body", "headers without end", "body without end")


@pytest.mark.parametrize("odd", [name for name in ODD if name not in UNBOUNDED])
def test_a_question_gets_a_mapping_or_one_of_three_errors(server: OddServer, odd, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    server.answer = ODD[odd]
    try:
        answer = query_server("query Odd { x }", seconds=5)
    except (Unreachable, Refused, UsageError) as error:
        if odd in REFUSALS:
            assert type(error) is REFUSALS[odd]
        assert "\n" not in str(error)
    else:
        assert isinstance(answer, dict)


@pytest.mark.parametrize("odd", ["list", "no project", "project list", "html", "commands odd"])
def test_a_trial_that_asks_whether_to_stop_saves_whatever_is_answered(
    server: OddServer, odd, monkeypatch
):
    import sys
    from types import SimpleNamespace

    from mlmodeldev.tracking import wandb_stop

    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.delenv("MLMODELDEV_STOP_NOTE", raising=False)
    online = SimpleNamespace(offline=False, entity="e", project="p", id="r")
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=online))
    monkeypatch.setattr(signals, "_received", ["SIGTERM"])
    server.answer = ODD[odd]
    assert wandb_stop.stop_wanted() is None
