"""What to fetch: addresses, size and digest of one file, checked when it is written down.

Example::

    Source(
        urls=["https://host/a.zip", "https://mirror/a.zip", "file:///shared/a.zip"],
        bytes=376971,
        sha256="f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff",
        headers={"Authorization": "Bearer ${HF_TOKEN}"},
    )

Query strings and headers may hold secrets: they never appear in a message, a log or a ``repr``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.fetch.address import split_address

SCHEMES = ("http", "https", "file")
_DIGEST_LENGTH = {"sha256": 64, "md5": 32}
_VARIABLE = re.compile(r"\$\{(\w+)\}")


class FetchError(UsageError):
    """The file could not be had: which, from where, why, and what to do.

    It is a ``UsageError`` so that entry points print it on one line, without a traceback.
    """


class NoSpace(FetchError):
    """The disk or the quota is too small; trying again doesn't help."""


def redact(url: str) -> str:
    """Return ``url`` without user, password, query and fragment, fit for a log.

    >>> redact("https://me:secret@host:8443/a.zip?token=1#x")
    'https://host:8443/a.zip?…'
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}{'?…' if parts.query else ''}"


@dataclass(frozen=True)
class Source:
    """One file and every place it can be had from.

    Args:
        urls: Addresses in order of preference (``http``, ``https`` or ``file``); one string is
            one address.
        bytes: Exact size in bytes, if known.
        sha256: Hexadecimal digest in either case, if known.
        name: File name in the directory. Default: the last part of the first address.
        md5: Used only when no ``sha256`` is known; protects from damage, not from malice.
        headers: Sent to ``hosts`` alone, and not to where they redirect; never over plain http,
            but for this machine itself. ``${NAME}`` is read from the environment at the time of
            the request.
        hosts: That get the headers, as ``host`` or ``host:port``. Default: that of the first
            address; a mirror is somebody else.
        licence: Shown in tables; not used.

    Raises:
        UsageError: An address, size, digest or name that can't be right.
    """

    urls: Sequence[str] = field(repr=False)
    bytes: int | None = None
    sha256: str | None = None
    name: str = ""
    md5: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    licence: str = ""
    hosts: Sequence[str] = ()

    def __post_init__(self) -> None:
        urls = _addresses(self.urls)
        object.__setattr__(self, "urls", urls)
        _check_urls(urls)
        _check_bytes(self.bytes)
        hosts = (self.hosts,) if isinstance(self.hosts, str) else tuple(self.hosts)
        object.__setattr__(self, "hosts", _check_hosts(hosts) or first_host(urls))
        for algorithm in _DIGEST_LENGTH:
            digest = _clean_digest(algorithm, getattr(self, algorithm))
            object.__setattr__(self, algorithm, digest)
        object.__setattr__(self, "name", _clean_name(self.name, urls[0]))

    @property
    def digest(self) -> tuple[str, str] | None:
        """``(algorithm, hexadecimal digest)`` to check, or ``None`` where nothing is known."""
        if self.sha256:
            return "sha256", self.sha256
        return ("md5", self.md5) if self.md5 else None

    @property
    def shown_urls(self) -> list[str]:
        """The addresses without their secrets."""
        return [redact(url) for url in self.urls]

    def request_headers(self, url: str) -> dict[str, str]:
        """Return the headers for one address, with ``${NAME}`` filled in; none for another host.

        Raises:
            UsageError: A variable that is not set (the value of the header is not shown).
        """
        if not (is_private(url) and {*_hosts_of(url)} & {*self.hosts}):
            return {}
        return {key: _expand(key, value, self.name) for key, value in self.headers.items()}


def _addresses(urls: Any) -> tuple[Any, ...]:
    if isinstance(urls, str):
        return (urls,)
    if not isinstance(urls, Sequence):
        raise UsageError(f"Source.urls: {urls!r} is no list of addresses")
    return tuple(urls)


def is_private(url: str) -> bool:
    """Whether nobody between here and there can read what is sent: https, or this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in _THIS_MACHINE


_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def first_host(urls: Sequence[str]) -> tuple[str, ...]:
    """Return the host of the first address that has one, with its port if the address has it."""
    return next(((each[0],) for url in urls if (each := _hosts_of(url))), ())


def _hosts_of(url: str) -> tuple[str, ...]:
    """Return what a host may be called: ``host:port``, and ``host`` where the port is https's."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    if not host:
        return ()
    plain = host.removesuffix(":443") if parts.scheme == "https" else host
    return (plain, f"{plain}:443") if parts.scheme == "https" and ":" not in plain else (plain,)


def _check_hosts(hosts: Sequence[str]) -> tuple[str, ...]:
    for host in hosts:
        if not isinstance(host, str) or not re.fullmatch(r"[\w.:\[\]-]+", host):
            raise UsageError(
                f"Source.hosts: {host!r} is no host: give its name alone, such as data.example.org"
            )
    return tuple(host.lower() for host in hosts)


def _check_urls(urls: Sequence[str]) -> None:
    if not urls:
        raise UsageError("Source.urls is empty: give at least one address")
    for url in urls:
        scheme = split_address(url, "Source.urls").scheme if isinstance(url, str) else ""
        if scheme not in SCHEMES:
            shown = redact(url) if scheme else repr(url)
            hint = nearest(scheme, SCHEMES) if scheme else ""
            raise UsageError(
                f"Source.urls: {shown} is not an address: it must start with "
                f"http://, https:// or file://{hint}"
            )


def _scheme(url: Any) -> str:
    """Return an address's scheme; empty where it is none, such as ``http://[::1``."""
    try:
        return urlsplit(url).scheme if isinstance(url, str) else ""
    except ValueError:
        return ""


def _check_bytes(size: int | None) -> None:
    if size is None:
        return
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise UsageError(f"Source.bytes={size!r} is not a size: give a whole number of bytes")


def _clean_digest(algorithm: str, digest: str | None) -> str | None:
    if digest is None:
        return None
    length = _DIGEST_LENGTH[algorithm]
    clean = digest.strip().lower() if isinstance(digest, str) else ""
    if not re.fullmatch(rf"[0-9a-f]{{{length}}}", clean):
        raise UsageError(
            f"Source.{algorithm}={digest!r} is not a digest: it must be {length} hexadecimal digits"
        )
    return clean


def _clean_name(name: str, url: str) -> str:
    name = name or unquote(urlsplit(url).path.rpartition("/")[2])
    if not name or name.startswith(".") or "/" in name or "\\" in name or "\0" in name:
        raise UsageError(
            f"Source.name={name!r} is not allowed: give a plain file name, without folders "
            "and without a leading dot"
        )
    return name


def _expand(key: str, value: str, name: str) -> str:
    def lookup(match: re.Match[str]) -> str:
        variable = match.group(1)
        if variable not in os.environ:
            raise UsageError(f"{name}: the header {key} needs the environment variable {variable}")
        return os.environ[variable]

    return _VARIABLE.sub(lookup, value)
