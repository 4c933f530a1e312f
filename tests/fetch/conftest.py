"""What the data tests share: a faulty server, a known body, and short waits."""

import hashlib
import random

import pytest

from mlmodeldev.data import Source, fetch
from tests.fetch.fault_server import FaultServer


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for name in ("MLMODELDEV_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.fixture
def server():
    with FaultServer() as server:
        yield server


@pytest.fixture(scope="session")
def body():
    """Three megabytes that no compressor and no chance can fake."""
    return random.Random(0).randbytes(3_000_001)


@pytest.fixture
def get(server, body, tmp_path):
    """Fetch ``names`` of the server as mirrors, with digest and size, quickly."""

    def call(*names, **options):
        fields = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest(), "name": "f.bin"}
        fields |= options.pop("fields", {})
        source = Source(urls=[server.url(name) for name in names], **fields)
        options = {"backoff": 0.01, "timeout": 5, "progress": False} | options
        return fetch(source, options.pop("directory", tmp_path / "data"), **options)

    return call


def listing(folder):
    """Every path below a folder, relative to it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
