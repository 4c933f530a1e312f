"""Whether a server can be asked from here: directly, or by the proxy that the environment names.

A compute node often has no way out but a proxy (``https_proxy``, ``no_proxy``): a server that takes
no connection from there answers all the same.

Example::

    is_reachable("https://api.wandb.ai", "WANDB_BASE_URL", seconds=3)
"""

from __future__ import annotations

import socket
from urllib.request import getproxies

from mlmodeldev.fetch.address import split_address
from mlmodeldev.fetch.transport import no_password

_NO_WAY = frozenset({407, 502, 503, 504})
"""HTTP statuses of a proxy that wants a password, or does not reach the server."""


def is_reachable(url: str, name: str, seconds: float) -> bool:
    """Return whether a server takes a connection, or gives a proxy an answer, whatever it is.

    Args:
        url: the server's address.
        name: of the setting or variable that it is given by.
        seconds: to wait for a connection, and as long for an answer by a proxy.

    Raises:
        UsageError: it is no address.
    """
    parts = split_address(url, name)
    if getproxies() and _has_proxy(url):
        return _answers(url, seconds)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=seconds).close()
    except (OSError, UnicodeError):  # the latter: a host's name that can't be one
        return False
    return True


def _has_proxy(url: str) -> bool:
    """Return whether requests asks a proxy for an address; ``no_proxy`` leaves some out."""
    from requests.utils import get_environ_proxies, select_proxy

    return bool(select_proxy(url, get_environ_proxies(url)))


def _answers(url: str, seconds: float) -> bool:
    import requests

    try:
        with requests.head(url, timeout=seconds, auth=no_password, allow_redirects=False) as answer:
            return answer.status_code not in _NO_WAY
    except (requests.exceptions.SSLError, requests.exceptions.InvalidSchema):
        return True  # somebody answers, or requests can't use such a proxy: the client will see
    except requests.RequestException:
        return False
