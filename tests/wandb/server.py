"""A W&B server on this machine, for tests and for trying the README without an account.

    python -m tests.wandb.server --port 8080
    export WANDB_BASE_URL=http://127.0.0.1:8080 WANDB_API_KEY=...   (it prints both)
    wandb sweep sweep/config.yaml

Everything is kept in memory; ``/`` shows it as JSON. Any key of 40 characters is accepted.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

# the answers of these modules enter the table
from tests.wandb import artifact_pages, artifacts, public, registries
from tests.wandb.faults import Faults
from tests.wandb.filestream import receive
from tests.wandb.operations import ANSWERS, Refusal
from tests.wandb.store import ENTITY, Store

__all__ = ["KEY", "Server", "artifact_pages", "artifacts", "public", "registries"]

KEY = "loopback" * 5
"""A key that no real server takes."""

_NAME = re.compile(r"\b(?:query|mutation)\s+(\w+)")


class Server:
    """The server in a thread of its own.

    Attributes:
        url: its address.
        store: what it knows.
        faults: what goes wrong.
    """

    def __init__(self, port: int = 0) -> None:
        self.store, self.faults = Store(), Faults()
        handler = type("Handler", (Handler,), {"store": self.store, "faults": self.faults})
        self._http = _Http(("127.0.0.1", port), handler)
        self.url = self.store.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._http.shutdown()
        self._http.server_close()

    def environment(self) -> dict[str, str]:
        """Return the variables that lead a client here."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_ENTITY": ENTITY}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: clients that are killed break their connections."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    store: Store
    faults: Faults

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        if path == "/":
            runs = {k: [r.state, r.sweep, r.summary] for k, r in self.store.runs.items()}
            self._json({"runs": runs, "unknown": self.store.unknown})
        elif path.startswith("/storage/"):
            content = self.store.blobs.get(path.removeprefix("/storage/"))
            self._send(200 if content is not None else 404, content or b"")
        else:
            self._unknown(f"GET {path}")

    def do_HEAD(self) -> None:
        self._send(200, b"")

    def do_PUT(self) -> None:
        path, body = unquote(self.path.partition("?")[0]), self._body()
        if self._fault(f"PUT {path}"):
            return
        key = path.removeprefix("/storage/")
        with self.store.lock:
            self.store.blobs[key] = body
            if key.startswith("run/"):
                _, entity, project, run, name = key.split("/", 4)
                self.store.run(entity, project, run).files[name] = body
        self._send(200, b"")

    def do_POST(self) -> None:
        path, body = unquote(self.path.partition("?")[0]), self._body()
        if path.startswith("/sdk/otel/"):  # the client's own telemetry
            self._json({})
            return
        if path == "/graphql":
            self._graphql(json.loads(body))
            return
        match = re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", path)
        if match:
            if not self._fault(f"file_stream {match[3]}"):
                sent = json.loads(body)
                with self.store.lock:
                    self.store.requests.append(("file_stream", {"run": match[3], **sent}))
                self._json(receive(self.store, self.store.run(*match.groups()), sent))
            return
        self._unknown(f"POST {path}")

    # --- parts

    def _graphql(self, request: dict[str, Any]) -> None:
        match = _NAME.search(request.get("query", ""))
        name, given = match[1] if match else "?", request.get("variables") or {}
        if self._fault(" ".join(("graphql", name, *self._whose(given)))):
            return
        with self.store.lock:
            self.store.requests.append((name, given))
            answer = ANSWERS.get(name)
            if answer is None:
                self._unknown(f"graphql {name}: {' '.join(request.get('query', '').split())}")
                return
            try:
                data = answer(self.store, given)
            except Refusal as error:
                self._json({"errors": [{"message": str(error)}]}, error.status)
                return
            except (KeyError, TypeError, AttributeError) as error:
                self._unknown(f"graphql {name} with {given}: {error!r}")
                return
        self._json({"data": data})

    def _whose(self, given: dict[str, Any]) -> list[str]:
        """Return the sweep that a request is about, and whether its agent has a run."""
        agent = self.store.agents.get(str(given.get("id")))
        if agent is None:
            return [given["sweep"]] if isinstance(given.get("sweep"), str) else []
        return [agent.sweep, "free" if given.get("runState") in (None, "{}") else "busy"]

    def _fault(self, what: str) -> bool:
        odd = self.faults.odd_answer(what)
        if odd is not None:
            self.close_connection = True
            with contextlib.suppress(OSError):  # the client has had enough
                odd(self)
            return True
        verdict = self.faults.verdict(what)
        if verdict < 0:
            self.close_connection = True
        elif verdict:
            self._json({"errors": [{"message": "a fault that was asked for"}]}, verdict)
        return verdict != 0

    def _unknown(self, what: str) -> None:
        self.store.unknown.append(what)
        self._json({"errors": [{"message": f"the loopback server does not know {what}"}]}, 400)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str = "application/octet-stream") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Nothing: the store keeps what was asked."""


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A W&B server on this machine.")
    parser.add_argument("--port", type=int, default=8080, help="0: any that is free")
    server = Server(parser.parse_args().port)
    exports = " ".join(f"{k}={v}" for k, v in server.environment().items())
    print(f"export {exports}", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.close()


if __name__ == "__main__":
    main()
