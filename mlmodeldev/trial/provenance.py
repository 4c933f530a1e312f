"""Where a result comes from: the commit, what differed from it, and the front rooms' digest.

Example::

    provenance()    # {"sha": "1f0c...", "dirty": False, "source": "9a0d3c..."}
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

SNAPSHOT_FILE = "snapshot.json"
"""In a copy of the code: the provenance of what was copied (`mlmodeldev.slurm.snapshot`)."""

FRONT_ROOMS = ("trainer.py", "model.py", "datamodule.py")


def provenance(root: Path | None = None) -> dict[str, Any]:
    """Return commit, whether the work tree differs from it, and a digest of the front rooms.

    Outside of a git repository commit and difference are None.
    """
    root = root or Path(__file__).resolve().parents[2]
    with contextlib.suppress(OSError, ValueError):
        copied: dict[str, Any] = json.loads((root / SNAPSHOT_FILE).read_text())
        return copied
    sha = git(root, "rev-parse", "HEAD")
    status = git(root, "status", "--porcelain", "--untracked-files=no") if sha else None
    digest = hashlib.sha256()
    for name in FRONT_ROOMS:
        file = root / name
        digest.update(file.read_bytes() if file.is_file() else b"")
    return {
        "sha": sha,
        "dirty": None if status is None else bool(status),
        "source": digest.hexdigest()[:16],
    }


def git(root: Path, *arguments: str) -> str | None:
    """Return what a git command prints, or None where there is no repository or no git."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
