"""Answers that no server should give, and that some machine on the way gives all the same.

Each is a function that gets the handler of one request and sends what it wants.

Example::

    server.faults.odd("html", "Heartbeat abc123 busy", count=2)
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

Odd = Callable[[Any], None]
ODD: dict[str, Odd] = {}
"""By name."""

PIECE = b"x" * 65536


def raw(handler: Any, body: bytes, status: int = 200, **headers: str) -> None:
    """Send a body as it is; a header's underscores are hyphens."""
    handler.send_response_only(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def _enter(name: str, body: Any, status: int = 200, **headers: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    ODD[name] = lambda handler: raw(handler, content, status, **headers)


def _beat(commands: Any) -> dict[str, Any]:
    return {"data": {"agentHeartbeat": {"agent": {"id": "a"}, "commands": commands}}}


HTML = b"<html><body>Please log in to the network</body></html>"

for number in (401, 403, 500, 429):
    _enter(f"status {number}", {"errors": [{"message": "odd"}]}, number)
_enter("404 page", HTML, 404, Content_Type="text/html")
_enter("html", HTML, Content_Type="text/html")
_enter("nothing", b"")
_enter("list", [])
_enter("null", None)
_enter("number", 7)
_enter("text", "text")
_enter("empty", {})
_enter("data null", {"data": None})
_enter("data list", {"data": [1]})
_enter("errors text", {"errors": "text", "data": None})
_enter("errors odd", {"errors": [None, 7, {"message": {"x": []}}]})
_enter("truncated", b'{"data": {"agentHeartbeat": {"comm')
_enter("deep", b"[" * 200_000)
_enter("long number", b'{"data": ' + b"9" * 100_000 + b"}")
_enter("no gzip", b"\x1f\x8bgarbage", Content_Encoding="gzip")
_enter("no utf-8", b'{"data": "\xff\xfe\xfd"}')
_enter("too short", b'{"data"', Content_Length="4000")
_enter("redirect", b"", 302, Location="/login")
_enter("redirect circle", b"", 308, Location="/graphql")
_enter("beat null", {"data": {"agentHeartbeat": None}})
_enter("beat text", {"data": {"agentHeartbeat": "text"}})
_enter("commands no JSON", _beat("{stop"))
_enter("commands number", _beat("3"))
_enter("commands list", _beat([{"type": "stop"}]))
_enter("commands odd", _beat(json.dumps([None, 7, "x", [], {}, {"type": 3}, {"type": "run"}])))
_enter("commands unknown", _beat(json.dumps([{"type": "dance", "run_id": "x"}])))
_enter("run odd id", _beat(json.dumps([{"type": "run", "run_id": "../../x", "args": {}}])))
_enter("agent null", {"data": {"createAgent": {"agent": None}}})
_enter("agent number", {"data": {"createAgent": {"agent": {"id": 7}}}})
_enter("no project", {"data": {"project": None}})
_enter("project list", {"data": {"project": [1, 2]}})
_enter("sweep text", {"data": {"project": {"sweep": "text"}}})
_enter("config number", {"data": {"project": {"sweep": {"state": 3, "config": 7}}}})
_enter("config no YAML", {"data": {"project": {"sweep": {"state": "RUNNING", "config": "{a"}}}})


def _endless(handler: Any) -> None:
    """A body without an end, as fast as it is read."""
    handler.send_response_only(200)
    handler.end_headers()
    while True:
        handler.wfile.write(PIECE)


def _trickle(first: bytes) -> Odd:
    """Something every fifth of a second, so that no time-out between two bytes is ever reached."""

    def send(handler: Any) -> None:
        handler.wfile.write(first)
        while not threading.Event().wait(0.2):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    return send


ODD["endless body"] = _endless
ODD["headers without end"] = _trickle(b"HTTP/1.1 200 OK\r\nX-Long: ")
ODD["body without end"] = _trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
ODD["no HTTP"] = lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
ODD["hangs up"] = lambda handler: None
