"""Whether a server can be asked: directly, or by a proxy where the environment names one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.fetch.reach import is_reachable
from tests.fetch.proxy import BEHIND, Proxy, only_by


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    made = Proxy()
    only_by(monkeypatch, made.url)
    yield made
    made.close()


@pytest.fixture
def closed() -> Iterator[str]:
    """An address of this machine where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_without_a_proxy_it_is_a_connection(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only_by(monkeypatch, None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert is_reachable(f"http://127.0.0.1:{server.getsockname()[1]}", "A", 5)
    assert not is_reachable(f"http://{closed}", "A", 5)
    assert not is_reachable(f"http://{'x' * 70}.invalid", "A", 5)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_by_a_proxy_it_is_an_answer_of_the_server(proxy: Proxy, scheme: str) -> None:
    assert is_reachable(f"{scheme}://{BEHIND}", "A", 5)
    assert not is_reachable(f"{scheme}://elsewhere.invalid", "A", 5), "the proxy's own answer"
    requests = [each.rstrip("/").removesuffix(":443") for each in proxy.requests]
    assert [each.rpartition("/")[2].split()[-1] for each in requests] == [
        BEHIND,
        "elsewhere.invalid",
    ]


def test_no_proxy_goes_past_it(proxy: Proxy, closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "other.example,127.0.0.1")
    assert not is_reachable(f"http://{closed}", "A", 5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert is_reachable(f"http://127.0.0.1:{server.getsockname()[1]}", "A", 5)
    assert proxy.requests == []


def test_a_proxy_that_is_away_reaches_nobody(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only_by(monkeypatch, f"http://{closed}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_reachable(f"http://127.0.0.1:{server.getsockname()[1]}", "A", 5)


def test_a_question_whether_it_is_there_shows_no_key(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {BEHIND} login user password of-nobody\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert is_reachable(f"http://{BEHIND}", "A", 5)
    assert (proxy.keys, len(proxy.requests)) == ([], 1)


def test_what_is_no_address_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"HF_ENDPOINT: .* is no address"):
        is_reachable("http://host:port", "HF_ENDPOINT", 5)
