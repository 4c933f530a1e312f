"""The stand-in for ClearML's server, and ClearML's own library that reads from it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clearml.reader import Reader
from tests.clearml.server import Server


@pytest.fixture(scope="module")
def clearml_server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def clearml_reader(
    clearml_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reader]:
    reader = Reader(clearml_server.environment(), tmp_path_factory.mktemp("cache"))
    yield reader
    reader.close()


@pytest.fixture
def only_calls_of_the_api(clearml_server: Server, clearml_reader: Reader) -> Iterator[None]:
    """Fail a test that made a call which is not known here, or not in the API's schema."""
    yield
    store = clearml_server.store
    new, store.checked = store.calls[store.checked :], len(store.calls)
    assert store.unknown == []
    assert clearml_reader.misfits(new) == []
