"""The key and the clock, against a server on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest

from tests.doctor.conftest import Place
from tests.fetch.proxy import BEHIND, Proxy, only_by
from tests.wandb.server import KEY, Handler, Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def online(place: Place, server: Server) -> Place:
    """A place that logs to the server, with a key that it takes."""
    server.faults.clear()
    place.patch.setenv("WANDB_BASE_URL", server.url)
    place.patch.setenv("WANDB_API_KEY", KEY)
    return place


def test_a_key_that_is_taken_is_no_fault(online: Place) -> None:
    lines = online.lines("wandb-key", "wandb-server", "wandb-clock")
    assert [line.level for line in lines] == ["OK"] * 3
    assert KEY not in str(lines)
    assert "runs go to" in lines[1].what


@pytest.mark.parametrize(("mode", "level"), [("online", "FAIL"), ("auto", "WARN")])
@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key(online: Place, server: Server, mode: str, level: str, status: int) -> None:
    server.faults.fail(status, 9)
    online.overrides.append(f"logger.wandb.mode={mode}")
    (line,) = online.lines("wandb-server")
    assert (line.level, line.mend) == (level, "wandb login --relogin")
    assert "does not take the key" in line.what
    assert KEY not in str(line)


def test_a_server_in_trouble_is_not_a_wrong_key(online: Place, server: Server) -> None:
    server.faults.fail(503, 9)
    (line,) = online.lines("wandb-server")
    assert line.level == "WARN"
    assert "status 503" in line.what
    assert "relogin" not in line.mend


def test_a_server_behind_a_proxy_answers(place: Place) -> None:
    proxy = Proxy()
    try:
        only_by(place.patch, proxy.url)
        place.patch.setenv("NETRC", str(place.home / ".netrc"))
        for host, shown in ((BEHIND, "answers"), ("elsewhere.invalid", "can't be reached")):
            place.patch.setenv("WANDB_BASE_URL", f"https://{host}")
            (line,) = place.lines("wandb-server")
            assert f"{host} {shown}" in line.what
    finally:
        proxy.close()


@pytest.mark.parametrize(("seconds", "shown"), [(3600, "3600 s behind"), (-3600, "s ahead of")])
def test_a_clock_that_is_not_the_servers(online: Place, seconds: int, shown: str) -> None:
    def date(self: Handler, timestamp: float | None = None) -> str:
        return formatdate(time.time() + seconds, usegmt=True)

    online.patch.setattr(Handler, "date_time_string", date)
    (line,) = online.lines("wandb-clock")
    assert (line.level, line.mend) == ("WARN", "timedatectl status")
    number, _, _ = line.what.partition(" s ")
    assert abs(int(number.rpartition(" ")[2]) - 3600) <= 1
    assert shown.rpartition(" ")[2] in line.what
