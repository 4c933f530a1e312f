"""Targets that other machines answer: W&B's server, and servers of data."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from tests.fuzz.mutation import WORDS, spoiled_bytes, spoiled_json, spoiled_text, spoiled_tree
from tests.fuzz.target import Target, assert_line, may_refuse

# --- W&B

_CONFIG = "program: trainer.py\nmethod: grid\nparameters:\n  optimizer.lr: {values: [0.1, 0.2]}\n"
_RUN = {"type": "run", "run_id": "x7ab", "args": {"optimizer.lr": {"value": 0.1}}}
_COMMANDS = [_RUN, {"type": "resume", "run_id": "x8", "args": {"optimizer.lr": {"value": 0.2}}},
             {"type": "stop", "run_id": "x7ab"}, {"type": "exit"}]  # fmt: skip
_ANSWERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("find", {"data": {"project": {"sweep": {"id": "1", "name": "s", "state": "RUNNING", "method": "grid", "config": _CONFIG}}}}),
    ("over", {"data": {"project": {"sweep": {"id": "1", "name": "s", "state": "FINISHED", "config": _CONFIG}}}}),
    ("register", {"data": {"createAgent": {"agent": {"id": "QWdlbnQ6"}}}}),
    ("heartbeat", {"data": {"agentHeartbeat": {"agent": {"id": "a"}, "commands": json.dumps(_COMMANDS)}}}),
    ("run", {"data": {"project": {"run": {"config": json.dumps({"sweep": {"value": "odd"}, "trial": {"value": {"identity": "t"}}})}}}}),
    ("find", {"errors": [{"message": "no such sweep"}], "data": None}),
)  # fmt: skip


def make_wandb(rng: Random) -> tuple[str, int, bytes]:
    """Return what is asked, and the status and body of the answer."""
    question, tree = rng.choice(_ANSWERS)
    if question == "heartbeat" and rng.random() < 0.6:  # the commands are JSON within JSON
        inner = spoiled_json(rng, _COMMANDS).decode("utf-8", "replace")
        tree = {"data": {"agentHeartbeat": {"agent": {"id": "a"}, "commands": inner}}}
    elif question == "find" and rng.random() < 0.3:
        text = spoiled_text(
            rng, _CONFIG, (*WORDS, "!!python/object/apply:os.system [x]", "&a [*a]")
        )
        tree = spoiled_tree(rng, tree, (text,), most=1)
    status = rng.choice(
        (200, 200, 200, 200, 400, 401, 403, 404, 409, 429, 500, 503, 100, 302, 204, 600)
    )
    return question, status, spoiled_json(rng, tree)


def check_wandb(given: tuple[str, int, bytes], folder: Path) -> None:
    """An answer is understood, or is none: the agent asks again, or says in a line what is wrong."""
    from mlmodeldev.tracking import wandb_api, wandb_run_id
    from mlmodeldev.tracking.sweep_commands import values_of

    question, status, body = given
    server = {"WANDB_API_KEY": "x" * 40, "WANDB_BASE_URL": "http://wandb.test"}
    sweep = wandb_api.RemoteSweep(
        "team", "odd", "s", {"parameters": {"optimizer.lr": {"values": [0.1, 0.2]}}}
    )
    with mock.patch.dict(os.environ, server), mock.patch(
        "mlmodeldev.tracking.wandb_api.post_json", return_value=(status, body)
    ), may_refuse(wandb_api.Unreachable, wandb_api.Refused):  # fmt: skip
        if question == "find":
            sweep_there = wandb_api.RemoteSweep.find("team/odd/s")
            assert isinstance(sweep_there.parameters, dict)
            assert isinstance(sweep_there.program, str)
        elif question == "over":
            assert sweep.over() in (True, False)
        elif question == "register":
            assert isinstance(sweep.register(), str)
        elif question == "run":
            chosen = mock.Mock(entity=None, project="odd")
            settings: Any = mock.Mock(logger=mock.Mock(wandb=chosen))
            owner = wandb_run_id._owner_in_wandb(settings, "x7")
            assert owner is None or owner.count("/") >= 1
        else:
            for command in sweep.heartbeat("a", ["x7ab"]):
                assert command.type in ("run", "resume", "stop", "exit")
                assert command.run_id is None or not {*command.run_id} & {*"/\\\n\0"}
                with may_refuse(ValueError):
                    assert {*values_of(command, sweep.parameters)} <= {"optimizer.lr"}


# --- bytes of HTTP, as a socket brings them


@contextlib.contextmanager
def served(answers: list[bytes]) -> Iterator[None]:
    """Let each new connection find an answer on its way, the last one again and again."""
    ahead, ends = [*answers], []

    def connect(connection: Any) -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            theirs.send((ahead.pop(0) if len(ahead) > 1 else ahead[0])[:150_000])
        theirs.shutdown(socket.SHUT_WR)
        ours.settimeout(5)
        ends.append(theirs)
        return ours

    def forget() -> None:
        from mlmodeldev.fetch.transport import _session

        for adapter in _session(os.getpid()).adapters.values():
            adapter.close()

    quiet = {"NO_PROXY": "*", "no_proxy": "*"}
    with mock.patch("urllib3.connection.HTTPConnection._new_conn", connect), mock.patch.dict(
        os.environ, quiet
    ), mock.patch("time.sleep"):  # fmt: skip
        forget()
        try:
            yield
        finally:
            forget()
            for end in ends:
                end.close()


_BODY = bytes(range(256)) * 8
_HEADERS = ("Content-Length", "Content-Range", "ETag", "Last-Modified", "Accept-Ranges", "Content-Encoding",
            "Transfer-Encoding", "Location", "Retry-After", "Connection", "X")  # fmt: skip
_VALUES = ("2048", "0", "-1", "99999999999999999999", "2048, 2048", "bytes 0-2047/2048", "bytes 100-2047/2048",
           "bytes */2048", "bytes 5-2/1", "bytes", "none", "gzip", "chunked", "identity", '"a"', 'W/"a"', "",
           "http://other.test/x", "/again", "file:///etc/passwd", "http://[::1", "close", "120", "1e9", "-5",
           "Fri, 31 Dec 1999 23:59:59 GMT", "x" * 70_000, "\x00", "é", "²", "9" * 5000)  # fmt: skip
_STATUS = ("200 OK", "200 OK", "206 Partial Content", "206 Partial", "416 Range", "404 Not Found", "503 Busy",
           "429 Slow", "301 Moved", "302 Found", "204 None", "304 Not", "100 Go", "abc", "999 x", "200", "401 No")  # fmt: skip


def _response(rng: Random) -> bytes:
    if rng.random() < 0.4:
        right = (
            b'HTTP/1.1 200 OK\r\nContent-Length: 2048\r\nAccept-Ranges: bytes\r\nETag: "a"\r\n\r\n'
            + _BODY
        )
        return spoiled_bytes(rng, right) if rng.random() < 0.6 else right
    lines = [f"HTTP/1.{rng.choice('10')} {rng.choice(_STATUS)}"]
    lines += [f"{rng.choice(_HEADERS)}: {rng.choice(_VALUES)}" for _ in range(rng.randrange(5))]
    body = rng.choice(
        (
            _BODY,
            _BODY,
            _BODY[100:],
            _BODY[:-1],
            _BODY + b"x",
            b"",
            _BODY * 60,
            b"800\r\n" + _BODY + b"\r\n0\r\n\r\n",
        )
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + body


def make_server(rng: Random) -> tuple[list[bytes], bool, bool]:
    """Return the answers of one to three connections, and what is known of the file beforehand."""
    return (
        [_response(rng) for _ in range(rng.randint(1, 3))],
        rng.random() < 0.6,
        rng.random() < 0.6,
    )


def check_server(given: tuple[list[bytes], bool, bool], folder: Path) -> None:
    """A file that is there is the right one, as far as that was known; else nothing is."""
    from mlmodeldev.fetch.download import fetch
    from mlmodeldev.fetch.source import Source

    answers, has_size, has_digest = given
    source = Source(
        ["http://data.test/a.bin"],
        bytes=len(_BODY) if has_size else None,
        sha256=hashlib.sha256(_BODY).hexdigest() if has_digest else None,
    )
    with served(answers), may_refuse() as refused:
        file = fetch(source, folder, retries=1, backoff=0, timeout=5, progress=False, offline=False)
        content = file.read_bytes()
        assert not has_digest or content == _BODY
        assert not has_size or len(content) == len(_BODY)
    if refused:
        assert not (folder / "a.bin").exists()
    assert {path.name for path in folder.iterdir()} <= {"a.bin", ".fetch"}


def make_wandb_bytes(rng: Random) -> bytes:
    """Return an answer of W&B's as bytes of HTTP."""
    _, tree = rng.choice(_ANSWERS)
    body = spoiled_json(rng, tree)[:100_000]
    lines = [
        f"HTTP/1.1 {rng.choice(_STATUS)}",
        f"Content-Length: {len(body)}",
        "Content-Type: application/json",
    ]
    lines += [f"{rng.choice(_HEADERS)}: {rng.choice(_VALUES)}" for _ in range(rng.randrange(3))]
    data = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + body
    return spoiled_bytes(rng, data) if rng.random() < 0.5 else data


def check_wandb_bytes(given: bytes, folder: Path) -> None:
    """A question ends with the answer's data, or with why there are none."""
    from mlmodeldev.tracking import wandb_api

    server = {"WANDB_API_KEY": "x" * 40, "WANDB_BASE_URL": "http://wandb.test"}
    with served([given]), mock.patch.dict(os.environ, server), may_refuse(
        wandb_api.Unreachable, wandb_api.Refused
    ) as refused:  # fmt: skip
        assert isinstance(wandb_api.query_server("query", seconds=30), dict)
    for line in refused:
        assert_line(line)
        assert "x" * 40 not in line


TARGETS = [
    Target(
        "W&B's answers",
        ("mlmodeldev.tracking.wandb_api", "mlmodeldev.tracking.sweep_commands"),
        make_wandb,
        check_wandb,
        fills=False,
    ),
    Target(
        "W&B's HTTP",
        ("mlmodeldev.tracking.bounded",),
        make_wandb_bytes,
        check_wandb_bytes,
        fills=False,
    ),
    Target(
        "data servers",
        (
            "mlmodeldev.fetch.transport",
            "mlmodeldev.fetch.attempts",
            "mlmodeldev.fetch.partial",
            "mlmodeldev.fetch.download",
        ),
        make_server,
        check_server,
    ),
]
