"""A proxy on this machine, for hosts that nothing but it reaches."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

BEHIND = "behind.invalid"
"""The host that the proxy reaches; of all others it says that it does not."""


class Proxy:
    """Answers for the host in a thread, and counts.

    Attributes:
        url: its own address.
        requests: what was asked of it, in order: method and address.
        keys: what was sent to the host as its password.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.keys: list[str] = []
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy

    def do_HEAD(self) -> None:
        self.proxy.requests.append(f"{self.command} {self.path}")
        self.proxy.keys += filter(None, [self.headers.get("Authorization")])
        self.send_response(404 if BEHIND in self.path else 502)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_CONNECT(self) -> None:
        self.proxy.requests.append(f"{self.command} {self.path}")
        self.send_response(200 if BEHIND in self.path else 502)
        self.end_headers()
        if BEHIND in self.path:  # as the host's own: an answer, though no certificate
            self.connection.recv(1024)
            self.wfile.write(b"HTTP/1.1 400 this is no TLS\r\n\r\n")
        self.close_connection = True

    def log_message(self, *given: object) -> None:
        pass


def only_by(monkeypatch: pytest.MonkeyPatch, proxy: str | None) -> None:
    """Let the environment name this proxy, or none, whatever it named before."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    if proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("https_proxy", proxy)
