"""Where a result comes from: the commit, what differed from it, and the user's files' digest.

Example::

    provenance()    # {"sha": "1f0c...", "dirty": False, "source": "9a0d3c...", "remote": None}
    changes()       # what `git diff HEAD` says, keys masked
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlmodeldev.project import project_root, run_git
from mlmodeldev.secrets import mask

SNAPSHOT_FILE = "snapshot.json"
"""In a copy of the code: the provenance of what was copied (`mlmodeldev.slurm.snapshot`)."""

SNAPSHOT_CHANGES = "snapshot.diff"
"""Beside it: how what was copied differed from the commit."""

USER_FILES = ("trainer.py", "model.py", "datamodule.py")
LARGEST_CHANGES = 2 * 2**20
"""Characters of a difference that is kept; a larger one is data that git should not track."""


def provenance(root: Path | None = None) -> dict[str, Any]:
    """Return commit, whether the work tree differs from it, and a digest of the user's files.

    ``remote`` is where the repository came from, without user name and password. Outside of a git
    repository commit, difference and remote are None.
    """
    root = root or project_root()
    with contextlib.suppress(OSError, ValueError):
        copied: dict[str, Any] = json.loads((root / SNAPSHOT_FILE).read_text())
        copied.pop("version", None)  # of the file, not of what it tells
        return copied
    sha = run_git(root, "rev-parse", "HEAD")
    status = run_git(root, "status", "--porcelain", "--untracked-files=no") if sha else None
    remote = run_git(root, "config", "--get", "remote.origin.url") if sha else None
    digest = hashlib.sha256()
    for name in USER_FILES:
        file = root / name
        digest.update(file.read_bytes() if file.is_file() else b"")
    return {
        "sha": sha,
        "dirty": None if status is None else bool(status),
        "source": digest.hexdigest()[:16],
        "remote": _without_login(remote),
    }


def changes(root: Path | None = None) -> str:
    """Return how the tracked files differ from the commit, keys masked; nothing: an empty text."""
    root = root or project_root()
    copied = root / SNAPSHOT_CHANGES
    if (root / SNAPSHOT_FILE).is_file():
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return copied.read_text()
        return ""
    text = run_git(root, "diff", "HEAD") or ""
    if len(text) > LARGEST_CHANGES:
        return f"{len(text)} characters: too many to keep\n"
    return mask(text) + "\n" if text else ""


def _without_login(address: str | None) -> str | None:
    """Return an address without what stands before its host: that may be a token."""
    if not address:
        return None
    parts = urlsplit(address)
    if not parts.scheme:
        return mask(address)
    return mask(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
