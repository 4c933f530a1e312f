"""The fetch tests' faulty server and clean environment, for the data made of what it serves."""

from tests.fetch.conftest import _clean_environment, body, get, server

__all__ = ["_clean_environment", "body", "get", "server"]
