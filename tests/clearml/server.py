"""A stand-in for ClearML's API server and its file server, on this machine.

    with Server() as server:
        os.environ.update(server.environment())
        ...
    assert server.store.unknown == []       # every call was one that is known here

Everything is kept in memory. It takes one pair of keys, and wants the token that it has given.
"""

from __future__ import annotations

import base64
import contextlib
import email
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.clearml.store import Refusal, Store

KEYS = ("loopback-key", "loopback-secret-of-no-real-server")


class Server:
    """Both servers, each in a thread.

    Attributes:
        store: what they know.
        faults: names of calls, and how often each is answered with HTTP status 500 from now on.
    """

    def __init__(self) -> None:
        self.store, self.faults = Store(), dict[str, int]()
        self._servers = [self._start(_Api), self._start(_Files)]
        self.url, self.files_url = (
            f"http://127.0.0.1:{each.server_address[1]}" for each in self._servers
        )

    def _start(self, kind: type[_Handler]) -> ThreadingHTTPServer:
        handler = type("Handler", (kind,), {"store": self.store, "faults": self.faults})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *given: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def environment(self) -> dict[str, str]:
        """Return the variables by which ClearML's client finds the servers."""
        return {
            "CLEARML_API_HOST": self.url,
            "CLEARML_WEB_HOST": self.url,
            "CLEARML_FILES_HOST": self.files_url,
            "CLEARML_API_ACCESS_KEY": KEYS[0],
            "CLEARML_API_SECRET_KEY": KEYS[1],
        }


class _Handler(BaseHTTPRequestHandler):
    store: Store
    faults: dict[str, int]
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # of a client that was killed
            super().handle()

    def log_message(self, *given: Any) -> None:
        pass

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, content: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _allowed(self) -> bool:
        given = self.headers.get("Authorization") or ""
        basic = base64.b64encode(":".join(KEYS).encode()).decode()
        return given in (f"Bearer {TOKEN}", f"Basic {basic}")


class _Api(_Handler):
    def _answer(self) -> None:
        body, name = self._body(), urlsplit(self.path).path.rpartition("/")[2]
        if self.faults.get(name, 0) > 0:
            self.faults[name] -= 1
            self._reply(500, "a fault that the test wants", {})
        elif not self._allowed() and name != "debug.ping":
            self._reply(401, "no such keys", {})
        elif name == "auth.login":
            self._reply(200, "OK", {"token": TOKEN})
        elif name == "debug.ping":
            self._reply(200, "OK", {})
        else:
            try:
                self._reply(200, "OK", self.store.answer(name, _content(name, body)))
            except Refusal as refusal:
                self._reply(400, str(refusal), {})

    do_GET = do_POST = _answer

    def _reply(self, status: int, reason: str, data: dict[str, Any]) -> None:
        meta = {
            "id": "1",
            "trx": "1",
            "endpoint": {"name": "", "requested_version": "2.23", "actual_version": "2.23"},
            "result_code": status,
            "result_subcode": 0,
            "result_msg": reason,
            "error_stack": "",
            "error_data": {},
        }
        self._send(status, json.dumps({"meta": meta, "data": data}).encode())


class _Files(_Handler):
    def do_POST(self) -> None:
        if not self._allowed():
            self._send(401, b"")
        elif self.faults.get("upload", 0) > 0:
            self.faults["upload"] -= 1
            self._send(500, b"")
        else:
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            for part in email.message_from_bytes(head + self._body()).walk():
                if part.get_filename():
                    name = unquote(str(part.get_filename())).lstrip("/")
                    self.store.files[name] = part.get_payload(decode=True)  # type: ignore[assignment]
            self._send(200, b"{}")

    def do_GET(self) -> None:
        content = self.store.files.get(unquote(self.path).lstrip("/"))
        self._send(404 if content is None else 200, content or b"", "application/octet-stream")


def _content(name: str, body: bytes) -> dict[str, Any]:
    if name == "events.add_batch":
        return {"events": [json.loads(line) for line in body.splitlines() if line.strip()]}
    return dict(json.loads(body or b"{}"))


def _token() -> str:
    now = int(time.time())
    content = {
        "exp": now + 30 * 86400,
        "iat": now,
        "api_version": "2.23",
        "server_version": "1.16.0",
        "feature_set": "basic",
    }
    parts = ({"alg": "HS256", "typ": "JWT"}, content)
    texts = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in parts]
    return b".".join([*texts, base64.urlsafe_b64encode(b"s" * 32).rstrip(b"=")]).decode()


TOKEN = _token()
