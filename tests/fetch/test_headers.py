"""A token goes to the hosts it is meant for, over https, and nowhere else: seen from the servers.

127.0.0.2 and 127.0.0.3 stand for hosts elsewhere; only 127.0.0.1 counts as this machine.
"""

from __future__ import annotations

import hashlib
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.fetch.download import fetch
from mlmodeldev.fetch.manifest import load
from mlmodeldev.fetch.source import FetchError, Source

BODY = b"the data" * 100
TOKEN = "Bearer hush-hush"


class Recorder:
    """A server on one address that writes down the headers it gets.

    Attributes:
        seen: the headers of each request.
        location: where it redirects; empty: it gives the file.
    """

    def __init__(self, host: str, context: ssl.SSLContext | None = None) -> None:
        self.seen: list[dict[str, str]] = []
        self.location = ""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.seen.append(dict(self.headers.items()))
                self.send_response(302 if owner.location else 200)
                if owner.location:
                    self.send_header("Location", owner.location)
                self.send_header("Content-Length", "0" if owner.location else str(len(BODY)))
                self.end_headers()
                self.wfile.write(b"" if owner.location else BODY)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer((host, 0), Handler)
        self.http.daemon_threads = True
        if context:
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        scheme = "https" if context else "http"
        self.host = f"{host}:{self.http.server_address[1]}"
        self.url = f"{scheme}://{self.host}/f.bin"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def secrets(self) -> list[str]:
        """What of the tokens and passwords has arrived."""
        named = [
            (name, value) for each in self.seen for name, value in each.items()
            if name.lower() in ("authorization", "x-key", "cookie") or "hush" in value
        ]  # fmt: skip
        return [f"{name}: {value}" for name, value in named]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A certificate for the addresses of the tests, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    names = "subjectAltName=IP:127.0.0.1,IP:127.0.0.2,IP:127.0.0.3"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=test", "-addext", names, "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return made, folder / "cert.pem"


@pytest.fixture
def servers(
    context: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Recorder]]:
    """Make a server: its address, and whether it speaks https."""
    tls, certificate = context
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("DATA_TOKEN", TOKEN)
    made: list[Recorder] = []

    def make(host: str, secure: bool = True) -> Recorder:
        made.append(Recorder(host, tls if secure else None))
        return made[-1]

    yield make
    for each in made:
        each.http.shutdown()
        each.http.server_close()


HEADERS = {"Authorization": "${DATA_TOKEN}", "X-Key": "hush"}
SENT = ["Authorization: Bearer hush-hush", "X-Key: hush"]


def get(folder: Path, *urls: str, **fields: Any) -> None:
    fields = {"headers": HEADERS, "sha256": hashlib.sha256(BODY).hexdigest(), **fields}
    source = Source(urls=urls, name="f.bin", **fields)
    fetch(source, folder, retries=1, backoff=0, progress=False, timeout=5)
    assert (folder / "f.bin").read_bytes() == BODY


def test_the_first_host_gets_it_over_https_and_a_mirror_does_not(servers, tmp_path):
    first, mirror = servers("127.0.0.2"), servers("127.0.0.3")
    get(tmp_path / "a", first.url)
    assert first.secrets == SENT
    first.location = mirror.url  # the file lies in a store of somebody else's
    get(tmp_path / "c", first.url)
    first.http.shutdown()
    first.http.server_close()
    get(tmp_path / "d", first.url, mirror.url)
    assert len(mirror.seen) == 2
    assert mirror.secrets == []


def test_hosts_that_are_named_get_it(servers, tmp_path):
    first, second, third = (servers(f"127.0.0.{n}") for n in (1, 2, 3))
    get(tmp_path / "a", second.url, hosts=[second.host, third.host])
    get(tmp_path / "b", third.url, hosts=[second.host.upper(), third.host])
    get(tmp_path / "c", first.url, hosts=[second.host])
    assert (second.secrets, third.secrets, first.secrets) == (SENT, SENT, [])


def test_plain_http_gets_none_but_on_this_machine(servers, tmp_path):
    here, there = servers("127.0.0.1", secure=False), servers("127.0.0.2", secure=False)
    get(tmp_path / "a", here.url)
    get(tmp_path / "b", there.url)
    get(tmp_path / "c", there.url, hosts=[there.host])
    get(tmp_path / "d", there.url.replace("//", "//me:hush@"))
    assert here.secrets == SENT
    assert len(there.seen) == 3
    assert there.secrets == []


def test_a_step_down_to_http_on_the_way_gets_none(servers, tmp_path):
    first, plain = servers("127.0.0.2"), servers("127.0.0.2", secure=False)
    first.location = plain.url
    get(tmp_path / "a", first.url)
    assert first.secrets == SENT
    assert plain.secrets == []


def test_passwords_of_netrc_go_to_their_host_over_https_alone(servers, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text(
        "".join(f"machine 127.0.0.{n} login me password hush\n" for n in (1, 2, 3))
    )
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    secure, plain = servers("127.0.0.2"), servers("127.0.0.3", secure=False)
    get(tmp_path / "a", secure.url, headers={})
    get(tmp_path / "b", plain.url, headers={})
    assert [each.split()[1] for each in secure.secrets] == ["Basic"]
    secure.location = plain.url
    get(tmp_path / "c", secure.url, headers={})
    assert len(plain.seen) == 2
    assert plain.secrets == []


def test_a_laboratorys_mirror_is_somebody_else(servers, tmp_path, monkeypatch):
    published, mirror = servers("127.0.0.2"), servers("127.0.0.3")
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"files:\n  - urls: [{published.url}]\n    headers: {{Authorization: '${{DATA_TOKEN}}'}}\n"
    )
    monkeypatch.setenv("MLMODELDEV_MIRROR", mirror.url.removesuffix("/f.bin"))
    source = load(file).entries[0].source
    fetch(source, tmp_path / "a", retries=1, backoff=0, progress=False, timeout=5)
    assert len(mirror.seen) == 1
    assert mirror.secrets == []
    assert source.request_headers(published.url) == {"Authorization": TOKEN}
    assert source.request_headers(mirror.url) == {}


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://data.example.org/x", True),
        ("https://DATA.example.org:443/x", True),
        ("https://me@data.example.org/x", True),
        ("https://data.example.org:8443/x", False),
        ("https://data.example.org.evil.net/x", False),
        ("https://data.example.org@evil.net/x", False),
        ("https://evil.net/data.example.org", False),
        ("http://data.example.org/x", False),
        ("http://data.example.org:443/x", False),
        ("file:///data.example.org/x", False),
    ],
)
def test_the_host_is_compared_whole(url, sent):
    source = Source(urls=["https://data.example.org/a"], headers={"X-Key": "hush"})
    assert bool(source.request_headers(url)) is sent


def test_what_is_no_host_is_one_line():
    with pytest.raises(UsageError, match=r"^Source.hosts: 'https://a.b/c' is no host"):
        Source(urls=["https://a.b/c"], hosts=["https://a.b/c"])


def test_a_refusal_says_how_keys_are_sent(servers, tmp_path):
    server = servers("127.0.0.2", secure=False)
    server.http.RequestHandlerClass.do_GET = lambda self: self.send_error(401)
    with pytest.raises(FetchError, match="over https alone"):
        get(tmp_path / "a", server.url)
