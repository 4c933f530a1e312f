"""Where MLflow keeps what it is sent: which addresses can be meant, and which must not be written.

Example::

    tracking_address("sqlite:////scratch/runs/mlflow.db")     # as it is
    tracking_address("./mlruns")                              # ValueError: says what to write
"""

from __future__ import annotations

from urllib.parse import urlsplit

from mlmodeldev.errors import nearest

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""A driver may follow: ``postgresql+psycopg``."""
SERVERS = ("http", "https")


def tracking_address(text: str) -> str:
    """Return the address of a server or a database.

    Raises:
        ValueError: it is none, or a password is part of it.
    """
    scheme, sign, rest = text.partition("://")
    if not sign or scheme.partition("+")[0] not in (*DATABASES, *SERVERS) or not rest.strip("/"):
        allowed = "http://HOST:PORT, https://HOST or sqlite:////PATH/mlflow.db"
        hint = nearest(scheme, [*DATABASES, *SERVERS]) if sign else ""
        raise ValueError(
            f"{without_password(text)!r} is no address of MLflow 3{hint}; write {allowed} (it keeps"
            " no runs in plain folders any more)"
        )
    try:
        urlsplit(text)
    except ValueError as error:
        raise ValueError(f"{text.rpartition('@')[2]!r} is no address: {error}") from None
    if without_password(text) != text:
        raise ValueError(
            f"{without_password(text)!r} had a password in it; give that address by"
            " MLFLOW_TRACKING_URI, or the password by MLFLOW_TRACKING_PASSWORD"
        )
    return text


def without_password(address: str) -> str:
    """Return an address as it may be shown."""
    try:
        parts = urlsplit(address)
        if parts.password is None:
            return address
        place = f"{parts.username}:***@{parts.netloc.rpartition('@')[2]}"
        return parts._replace(netloc=place).geturl()
    except ValueError:
        return address
