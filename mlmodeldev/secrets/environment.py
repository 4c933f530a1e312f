"""The keys in the environment and in ``.netrc``, and warnings about where they lie.

Example::

    secret_names({"WANDB_API_KEY": "...", "LANG": "C"})     # ["WANDB_API_KEY"]
"""

from __future__ import annotations

import netrc
import os
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

_NAME = re.compile(
    r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|JWT)(?:$|_)", re.IGNORECASE
)
_WORD = re.compile(r"[A-Za-z]+|[\d.]+")
_SHORTEST = 8
"""Characters of a value that is masked: a shorter one would be found in ordinary words."""


def secret_names(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that hold keys.

    Their names say so (``..._KEY``, ``..._TOKEN``, ``..._SECRET``, ``..._PASSWORD``); paths,
    single words and numbers are taken for none.
    """
    return [
        name for name, value in environment.items() if _NAME.search(name) and _looks_random(value)
    ]


def _looks_random(value: str) -> bool:
    plain = _WORD.fullmatch(value) and len(value) < 20
    path = value.startswith(("/", "~/", "./"))
    return len(value) >= _SHORTEST and not plain and not path and not re.search(r"\s", value)


def warn_of_keys_left_out() -> None:
    """Say so where jobs will find no W&B key, since the only one is in this environment."""
    if key_is_left_out():
        print(
            "WANDB_API_KEY is not handed to jobs, whose environment Slurm keeps: run 'wandb login'"
            " once, which writes .netrc for them; without it they log offline",
            file=sys.stderr,
        )


def key_is_left_out() -> bool:
    """Return whether jobs find no W&B key, since the only one is in this environment."""
    return bool(os.environ.get("WANDB_API_KEY") and not _keys_of_netrc(_netrc_file()))


def secrets_here() -> dict[str, str]:
    """Return the keys of the environment and of ``.netrc``, and where each comes from."""
    variables = {os.environ[name]: name for name in secret_names(os.environ)}
    return {**_keys_of_netrc(_netrc_file()), **variables}


def _netrc_file() -> Path:
    given = os.environ.get("NETRC")
    home = os.environ.get("HOME", "")
    return Path(given) if given else Path(home) / ".netrc"


def _keys_of_netrc(file: Path) -> Mapping[str, str]:
    try:
        return _read_netrc(str(file), file.stat().st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=4)
def _read_netrc(file: str, changed: int) -> Mapping[str, str]:
    try:
        hosts = netrc.netrc(file).hosts
    except (OSError, netrc.NetrcParseError):
        return {}
    return {
        password: f"{host} in .netrc"
        for host, (_, _, password) in hosts.items()
        if password and len(password) >= _SHORTEST
    }


def warn_of_open_netrc() -> None:
    """Say so, once a process, if others may read the file that holds keys."""
    file = open_netrc()
    if file is not None and str(file) not in _warned:
        _warned.add(str(file))
        mode = file.stat().st_mode & 0o777
        print(
            f"{file}: others can read your keys (mode {mode:o}); run: chmod 600 {file}",
            file=sys.stderr,
        )


def open_netrc() -> Path | None:
    """Return the file that holds keys if others than its owner may read it."""
    file = _netrc_file()
    try:
        return file if file.stat().st_mode & 0o077 else None
    except OSError:
        return None


_warned: set[str] = set()
