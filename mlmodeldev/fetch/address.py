"""The parts of an address that somebody has written.

Example::

    split_address("https://host:8443/a.zip", "WANDB_BASE_URL").port      # 8443
"""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from mlmodeldev.errors import UsageError


def split_address(url: str, name: str) -> SplitResult:
    """Return the parts of an address.

    Args:
        url: the address.
        name: of the setting or variable that it is given by.

    Raises:
        UsageError: it can't be taken apart: brackets that are no IPv6 address, a port that is no
            number.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port, parts.hostname
    except ValueError as error:
        host = url.rpartition("@")[2]  # before it may stand a password
        raise UsageError(f"{name}: {host[:80]!r} is no address: {error}") from None
    return parts
