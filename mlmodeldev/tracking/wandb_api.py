"""The W&B server: its address, the key for it, and questions in GraphQL.

The key is read where it is used, from ``WANDB_API_KEY`` or ``.netrc``, and is neither kept nor
shown. Questions go past the client, which answers none while it is not logged in.

Example::

    ask("query Viewer { viewer { entity } }")["viewer"]["entity"]
"""

from __future__ import annotations

import configparser
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlmodeldev.errors import UsageError

DEFAULT_HOST = "https://api.wandb.ai"
"""Said explicitly, for the client's own default has changed between versions."""


class Unreachable(Exception):
    """The server did not answer; it may do so later."""


class Refused(Exception):
    """The server answered that it will not: there is no such thing, or no right to it."""


def host() -> str:
    """Return the server's address: the environment's, else what ``wandb login --host`` noted."""
    return (os.environ.get("WANDB_BASE_URL") or _noted_host() or DEFAULT_HOST).rstrip("/")


def _noted_host() -> str | None:
    folder = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    reader = configparser.ConfigParser(interpolation=None)
    try:
        reader.read(Path(folder).expanduser() / "settings")
        return reader.get("default", "base_url", fallback=None)
    except (configparser.Error, OSError, UnicodeDecodeError):
        return None


def key_for(address: str) -> str | None:
    """Return the key for a server, if there is one."""
    given = os.environ.get("WANDB_API_KEY")
    if given:
        return given
    try:
        # by host and port, as the client writes and looks it up
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(address).netloc)
    except (OSError, netrc.NetrcParseError):
        return None
    return found[2] if found and found[2] else None


def ask(query: str, variables: Mapping[str, Any] | None = None, seconds: float = 20) -> Any:
    """Return the answer's data.

    Args:
        query: GraphQL.
        variables: of the query.
        seconds: to wait for the answer.

    Raises:
        UsageError: there is no key, or the server takes it for none.
        Unreachable: no answer, or an error of the server's own (5xx, 429).
        Refused: any other error.
    """
    import requests

    address = host()
    key = key_for(address)
    if not key:
        raise UsageError(f"{address}: there is no key (run 'wandb login', or set WANDB_API_KEY)")
    try:
        answer = requests.post(
            f"{address}/graphql",
            json={"query": query, "variables": dict(variables or {})},
            auth=("api", key),
            timeout=seconds,
        )
    except requests.RequestException as error:
        raise Unreachable(f"{address}: {type(error).__name__}") from None
    if answer.status_code in (401, 403):
        raise UsageError(f"{address}: the key is not accepted; run 'wandb login --relogin'")
    if answer.status_code >= 500 or answer.status_code == 429:
        raise Unreachable(f"{address}: status {answer.status_code}")
    return _data(address, answer)


def _data(address: str, answer: Any) -> Any:
    try:
        said = answer.json()
    except ValueError:
        raise Unreachable(f"{address}: answers no JSON") from None
    if said.get("errors") or "data" not in said:
        messages = [str(error.get("message")) for error in said.get("errors") or []]
        raise Refused("; ".join(messages) or f"status {answer.status_code}")
    return said["data"]
