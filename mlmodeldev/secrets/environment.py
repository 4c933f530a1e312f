"""The keys in the environment and in ``.netrc``, and warnings about where they lie.

Example::

    secret_names({"WANDB_API_KEY": "...", "LANG": "C"})     # ["WANDB_API_KEY"]
"""

from __future__ import annotations

import base64
import json
import netrc
import os
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, quote_plus

_NAME = re.compile(
    r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|JWT)(?:$|_)", re.IGNORECASE
)
_SURE = re.compile(
    r"(?:API_?KEY|ACCESS_?KEY|SECRET_?KEY|AUTH_?KEY|PRIVATE_?KEY|SECRET|TOKEN|PASSWORD|PASSWD"
    r"|PASSPHRASE|(?:^|_)PASS|[A-Z]_PWD|(?:^|_)JWT|(?:^|_)PAT)\d*$",
    re.IGNORECASE,
)
"""Names that can't mean anything else: a short value or a plain word is a key, too."""
_OF_PASSWORDS = re.compile(
    r"(?:PASSWORD|PASSWD|PASSPHRASE|(?:^|_)PASS|[A-Z]_PWD)\d*$", re.IGNORECASE
)
_WORD = re.compile(r"[A-Za-z]+|[\d.]+")
_NO_KEY = re.compile(
    r"(?:true|false|none|null|auto|default|yes|no|on|off|basic|bearer|enabled|disabled)",
    re.IGNORECASE,
)
_PROXY = re.compile(r"(?:https?|ftp|all|no)_proxy", re.IGNORECASE)
_LOGIN = re.compile(r"[a-z][\w+.-]*://[^/\s:@]*:([^/\s@]+)@", re.IGNORECASE)
"""The password in an address, as of a proxy or a database."""
_SHORTEST = 8
"""Characters of a value that is masked: a shorter one would be found in ordinary words."""
_SHORTEST_SURE, _SHORTEST_PASSWORD = 6, 4
"""The same where the name leaves no question."""


def secret_names(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that hold keys.

    Their names say so (``..._KEY``, ``..._TOKEN``, ``..._SECRET``, ``..._PASSWORD``); paths, and
    single words and numbers where the name may mean something else, are taken for none.
    """
    return [
        name
        for name, value in environment.items()
        if (kinds := _kinds(name)) and _is_key(kinds, value)
    ]


@lru_cache(maxsize=4096)
def _kinds(name: str) -> frozenset[str]:
    """Return what a variable's name says of its value: ``sure``, ``password``, ``maybe``."""
    patterns = {"sure": _SURE, "password": _OF_PASSWORDS, "maybe": _NAME}
    return frozenset(kind for kind, pattern in patterns.items() if pattern.search(name))


def _is_key(kinds: frozenset[str], value: str) -> bool:
    is_sure = "sure" in kinds and _may_be_key("password" in kinds, value)
    return is_sure or ("maybe" in kinds and _looks_random(value))


def _may_be_key(is_password: bool, value: str) -> bool:
    if is_path(value) or _NO_KEY.fullmatch(value) or (not is_password and re.search(r"\s", value)):
        return False
    return len(value) >= (_SHORTEST_PASSWORD if is_password else _SHORTEST_SURE)


def _looks_random(value: str) -> bool:
    plain = _WORD.fullmatch(value) and len(value) < 20
    return (
        len(value) >= _SHORTEST and not plain and not is_path(value) and not re.search(r"\s", value)
    )


def is_path(value: str) -> bool:
    """Return whether a value names a file: where a key lies, not the key."""
    if not value.startswith(("/", "~/", "./", "../")):
        return False
    # base64 may begin with a slash, too
    longest = max(value.split("/"), key=len)
    mixed = all(re.search(each, longest) for each in ("[a-z]", "[A-Z]", r"\d"))
    return not (mixed and len(longest) >= 14 and re.fullmatch(r"[A-Za-z0-9+/=]+", value))


def is_proxy(name: str) -> bool:
    """Return whether a variable names a proxy: a job without it has no network."""
    return bool(_PROXY.fullmatch(name))


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
    environment = dict(os.environ)  # each look at it decodes: this is done for all output
    variables = {environment[name]: name for name in secret_names(environment)}
    logins = {
        match[1]: name
        for name, value in environment.items()
        if "://" in value and (match := _LOGIN.match(value)) and len(match[1]) >= _SHORTEST_PASSWORD
    }
    return {**logins, **_keys_of_netrc(_netrc_file()), **variables}


@lru_cache(maxsize=256)
def spellings(key: str) -> tuple[str, ...]:
    """Return a key as it may stand in text: as it is, in JSON, in an address, in base64.

    In base64, as of ``Authorization: Basic``, a part of what stands before it shares its first
    letters, so that three beginnings are looked for.
    """
    forms = [key, json.dumps(key)[1:-1], quote(key, safe=""), quote_plus(key), repr(key)[1:-1]]
    if len(key) >= _SHORTEST:
        for before in range(3):
            text = base64.b64encode(b"\0" * before + key.encode()).decode().rstrip("=")
            whole = (before + len(key.encode())) // 3 * 4
            core = text[0 if not before else before + 1 : whole]
            forms += [core, core.replace("+", "-").replace("/", "_")]
    return tuple(dict.fromkeys(form for form in forms if len(form) >= _SHORTEST_PASSWORD))


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
        if password and len(password) >= _SHORTEST_PASSWORD
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
