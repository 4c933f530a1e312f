"""The fetch tests' faulty server and clean environment; the published data sets from a mirror."""

import pytest

from tests.data.published import SETS, use_mirror
from tests.fetch.conftest import _clean_environment, body, get, server
from tests.fetch.fault_server import FaultServer
from tests.small_data import write_manifests

__all__ = ["_clean_environment", "body", "get", "server"]


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    return write_manifests(tmp_path_factory.mktemp("manifests"), SETS)


@pytest.fixture(scope="module")
def mirror():
    with FaultServer() as serving:
        for name, files in SETS.items():
            for file, content in files.items():
                serving.add(f"{name}/{file}", content)
        yield serving


@pytest.fixture
def sets(mirror, manifests, monkeypatch):
    """Point the manifests at the mirror, as a laboratory would."""
    use_mirror(mirror.url("").rstrip("/"), manifests, monkeypatch.setenv)
    mirror.requests.clear()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A data folder for tests that only read."""
    return tmp_path_factory.mktemp("shared-data")
