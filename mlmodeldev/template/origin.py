"""Where this package came from, so that a new project can ask for the same one again.

Never by its name alone: on a package index that could be anybody's.

Example::

    requirement()                  # "-e /srv/mlmodeldev", in a clone
    requirement(["tensorboard"])   # "mlmodeldev[tensorboard] @ git+https://...@4f1c09a..."
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlmodeldev.errors import UsageError

NAME = "mlmodeldev"
CLONE = Path(__file__).resolve().parents[2]
"""The folder that this package lies in: a clone, or an environment's site-packages."""
_COMMIT = re.compile(r"@[0-9a-f]{7,64}(#|$)")


def is_clone(folder: Path = CLONE) -> bool:
    """Return whether the folder is a clone of this package's repository."""
    return (folder / "trainer.py").is_file() and (folder / "pyproject.toml").is_file()


def requirement(extras: Sequence[str] = (), given: str | None = None) -> str:
    """Return a line of requirements.txt that installs what is installed here.

    Args:
        extras: optional parts, such as ``tensorboard``.
        given: a folder, a wheel or a git address with a commit, instead of what is installed.

    Raises:
        UsageError: ``given`` is none of these, or nothing tells where this package came from.
    """
    if given:
        return _written(given, extras)
    if is_clone():
        return _editable(CLONE, extras)
    source = _direct_url()
    if source is None:
        raise UsageError(
            "nothing tells where this mlmodeldev was installed from; name it by --source:"
            " a folder, a wheel file, or git+https://...@COMMIT"
        )
    return _from_record(source, extras)


def _named(address: str, extras: Sequence[str]) -> str:
    return f"{NAME}{_bracket(extras)} @ {address}"


def _bracket(extras: Sequence[str]) -> str:
    return f"[{','.join(extras)}]" if extras else ""


def _editable(folder: Path, extras: Sequence[str]) -> str:
    line = f"{folder}{_bracket(extras)}"
    return f'-e "{line}"' if re.search(r"\s", line) else f"-e {line}"


def _written(given: str, extras: Sequence[str]) -> str:
    """Return the line for what --source names."""
    path = Path(given).expanduser().absolute()
    if path.is_dir() and is_clone(path):
        return _editable(path, extras)
    if path.is_file() and path.suffix == ".whl":
        return _named(path.as_uri(), extras)
    address = given.removeprefix("git+")
    if given.startswith("git+") and urlsplit(address).password is not None:
        raise UsageError("--source: a password must not stand in an address")
    if given.startswith("git+") and _COMMIT.search(urlsplit(address).path):
        return _named(given, extras)
    raise UsageError(
        f"--source {given}: must be a clone's folder, a wheel file, or git+https://...@COMMIT"
    )


def _direct_url() -> dict[str, Any] | None:
    """Return what the installer recorded (PEP 610); None: it came from an index."""
    try:
        text = distribution(NAME).read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    record: dict[str, Any] | None = json.loads(text) if text else None
    return record


def _from_record(source: dict[str, Any], extras: Sequence[str]) -> str:
    url, parts = source["url"], []
    if source.get("dir_info", {}).get("editable"):
        return _editable(Path(unquote(urlsplit(url).path)), extras)
    if "vcs_info" in source:
        url = f"{source['vcs_info']['vcs']}+{url}@{source['vcs_info']['commit_id']}"
    if "subdirectory" in source:
        parts.append(f"subdirectory={source['subdirectory']}")
    digest = source.get("archive_info", {}).get("hashes", {}).get("sha256")
    if digest:
        parts.append(f"sha256={digest}")
    return _named(url + ("#" + "&".join(parts) if parts else ""), extras)
