"""A real HTTP server on 127.0.0.1 that breaks in the ways that servers do.

Example::

    with FaultServer() as server:
        server.add("a.bin", body, first=[Answer(reset_after=1000)])
        fetch(Source(urls=[server.url("a.bin")]), folder)
        server.requests        # what was asked, in order
"""

import gzip
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PIECE = 65536


@dataclass
class Answer:
    """How one request is answered; the default is what a good server does."""

    status: int = 0
    headers: dict = field(default_factory=dict)
    body: bytes | None = None
    etag: str | None = None
    cut_after: int | None = None
    reset_after: int | None = None
    stall_after: int | None = None
    hold_after: int | None = None
    ranges: bool = True
    length: bool = True
    chunked: bool = False
    gzip_coded: bool = False
    rate: float | None = None
    needs: tuple | None = None
    wrong_range: bool = False


@dataclass
class Request:
    path: str
    range: str | None
    headers: dict


@dataclass
class Resource:
    body: bytes
    etag: str
    first: list
    then: Answer


class FaultServer:
    """Serves bytes from memory; ``release`` lets held and stalled answers go."""

    def __init__(self):
        self.resources, self.requests = {}, []
        self.release = threading.Event()
        self.paused = threading.Semaphore(0)
        self.lock = threading.Lock()
        self.sent = 0

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler, bind_and_activate=False)
        self._http.request_queue_size = 128
        self._http.handle_error = lambda *_: None  # a client that leaves is no news
        self._http.daemon_threads = True
        self._http.server_bind()
        self._http.server_activate()
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.release.set()
        self._http.shutdown()
        self._http.server_close()

    def add(self, name, body, first=(), then=None, etag='"v1"'):
        self.resources[f"/{name}"] = Resource(body, etag, list(first), then or Answer())

    def url(self, name, host="127.0.0.1"):
        return f"http://{host}:{self._http.server_address[1]}/{name}"

    def ranges(self, name=None):
        return [r.range for r in self.requests if name is None or r.path == f"/{name}"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultServer

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = urlsplit(self.path).path
        with self.owner.lock:
            self.owner.requests.append(
                Request(path, self.headers.get("Range"), dict(self.headers.items()))
            )
            resource = self.owner.resources.get(path)
            answer = Answer(status=404) if resource is None else resource.then
            if resource is not None and resource.first:
                answer = resource.first.pop(0)
        if answer.needs and self.headers.get(answer.needs[0]) != answer.needs[1]:
            answer = Answer(status=401)
        if answer.status:
            self._plain(answer)
        else:
            self._file(resource, answer)

    def _plain(self, answer):
        body = answer.body or b"no"
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, resource, answer):
        body = resource.body if answer.body is None else answer.body
        etag = resource.etag if answer.etag is None else answer.etag
        if answer.gzip_coded:
            body = gzip.compress(body, mtime=0)
        start, stop, status = self._wanted(len(body), etag, answer)
        if status == 416:
            total = f"bytes */{len(body)}"
            self._plain(Answer(status=416, headers={"Content-Range": total}))
            return
        self.send_response(status)
        if status == 206:
            shown = start + 7 if answer.wrong_range else start
            self.send_header("Content-Range", f"bytes {shown}-{stop - 1}/{len(body)}")
        if etag:
            self.send_header("ETag", etag)
        if answer.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if answer.gzip_coded:
            self.send_header("Content-Encoding", "gzip")
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self._body(body[start:stop], answer)

    def _wanted(self, size, etag, answer):
        requested = self.headers.get("Range")
        changed = self.headers.get("If-Range") not in (None, etag)
        if not requested or not answer.ranges or changed:
            return 0, size, 200
        first, _, last = requested.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1, size) if last else size
        return (start, stop, 206) if start < size else (0, 0, 416)

    def _body(self, body, answer):
        if answer.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif answer.length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.close_connection = True
        self.end_headers()
        try:
            self._pieces(body, answer)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _pieces(self, body, answer):
        ends = [answer.cut_after, answer.reset_after, answer.stall_after, answer.hold_after]
        limit = min((end for end in ends if end is not None), default=len(body))
        self._send(memoryview(body)[:limit], answer)
        if answer.hold_after is not None:
            self.owner.paused.release()
            self.owner.release.wait()
            self._send(memoryview(body)[limit:], answer)
        elif answer.stall_after is not None:
            self.owner.paused.release()
            self.owner.release.wait()
            self.close_connection = True
            return
        elif answer.reset_after is not None:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            self.close_connection = True
            return
        elif answer.cut_after is not None:
            self.close_connection = True
            return
        if answer.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, view, answer):
        start, piece = time.monotonic(), PIECE
        if answer.rate:
            piece = max(1024, min(PIECE, int(answer.rate / 50)))
        for at in range(0, len(view), piece):
            part = view[at : at + piece]
            if answer.chunked:
                self.wfile.write(b"%x\r\n" % len(part) + bytes(part) + b"\r\n")
            else:
                self.wfile.write(part)
            self.owner.sent += len(part)
            if answer.rate:
                time.sleep(max(0, start + (at + len(part)) / answer.rate - time.monotonic()))
