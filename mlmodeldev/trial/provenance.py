"""Where a result comes from: the commit, what differed from it, and the user's files' digest.

Example::

    provenance()    # {"sha": "1f0c...", "dirty": False, "source": "9a0d3c...", "remote": None}
    changes(code=["nets/mine.py"])      # `git diff HEAD`, and mine.py if git does not track it
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
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


def provenance(root: Path | None = None, code: Iterable[str] = ()) -> dict[str, Any]:
    """Return commit, whether the work tree differs from it, and a digest of the user's files.

    ``remote`` is where the repository came from, without user name and password. Outside of a git
    repository commit, difference and remote are None.

    Args:
        root: the project's folder; None: this project's.
        code: files that must be in the commit for it to hold the trial's code (`trial.code`).
    """
    root = root or project_root()
    copied = copied_facts(root)
    if copied is not None:
        copied = {k: v for k, v in copied.items() if k not in _OF_THE_COPY}
        dirty = copied.get("dirty")
        return {**copied, "dirty": dirty if dirty is None else dirty or bool(untracked(code, root))}
    sha = run_git(root, "rev-parse", "HEAD")
    status = run_git(root, "status", "--porcelain", "--untracked-files=no") if sha else None
    remote = run_git(root, "config", "--get", "remote.origin.url") if sha else None
    digest = hashlib.sha256()
    for name in USER_FILES:
        file = root / name
        digest.update(file.read_bytes() if file.is_file() else b"")
    return {
        "sha": sha,
        "dirty": None if status is None else bool(status) or bool(untracked(code, root)),
        "source": digest.hexdigest()[:16],
        "remote": _without_login(remote),
    }


def changes(root: Path | None = None, code: Iterable[str] = ()) -> str:
    """Return how the code differs from the commit, keys masked; nothing: an empty text.

    Args:
        root: the project's folder; None: this project's.
        code: files that are told of as new ones where git does not track them.
    """
    root = root or project_root()
    if copied_facts(root) is not None:
        copied = root / SNAPSHOT_CHANGES
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = copied.read_bytes().decode().rstrip("\n")
            return _limited(f"{text}\n" if text else "", root, code)
        return _limited("", root, code)
    text = run_git(root, "diff", "HEAD") or ""
    return _limited(mask(text) + "\n" if text else "", root, code)


def untracked(code: Iterable[str], root: Path) -> list[str]:
    """Return those of the project's files that git does not track; none where there is no git."""
    names = list(code)
    copied = copied_facts(root)
    if copied is not None:
        new = copied.get("untracked") or ()
        return [name for name in names if name in new]
    listed = run_git(root, "ls-files", "-z", "--", *names) if names else None
    return [] if listed is None else [n for n in names if n not in listed.split("\0")]


_OF_THE_COPY = ("version", "untracked", "differences")
"""What a snapshot's file tells of the copy, not of where a result comes from."""


def copied_facts(root: Path) -> dict[str, Any] | None:
    """Return what a snapshot's file tells of the copy; None where the project is no snapshot."""
    with contextlib.suppress(OSError, ValueError):
        copied: dict[str, Any] = json.loads((root / SNAPSHOT_FILE).read_text())
        return copied
    return None


def _limited(text: str, root: Path, code: Iterable[str]) -> str:
    """Return a difference with the untracked files as new ones, unless it is too long to keep."""
    text += "".join(_as_new(root / name, name) for name in untracked(code, root))
    if len(text) > LARGEST_CHANGES:
        return f"{len(text)} characters: too many to keep\n"
    return text


def _as_new(file: Path, name: str) -> str:
    """Return a file as `git diff` shows a new one, keys masked."""
    lines = mask(file.read_bytes().decode(errors="replace")).split("\n")
    end = "\\ No newline at end of file\n" if lines[-1] else ""
    lines = lines if lines[-1] else lines[:-1]
    head = f"diff --git a/{name} b/{name}\nnew file mode 100644\n"
    if not lines:
        return head
    head += f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@\n"
    return head + "".join(f"+{line}\n" for line in lines) + end


def _without_login(address: str | None) -> str | None:
    """Return an address without what stands before its host: that may be a token."""
    if not address:
        return None
    parts = urlsplit(address)
    if not parts.scheme:
        return mask(address)
    return mask(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
