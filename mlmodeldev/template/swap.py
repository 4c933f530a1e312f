"""Several files of a folder that change together: all or none, also when a kill comes between.

The new contents are written to ``.mlmodeldev/incoming.tmp``; renaming that to
``.mlmodeldev/incoming`` decides; then each file takes its place. `finish` goes on after a kill.

Example::

    finish(root)                                           # what a kill has left
    write_all(root, {"trainer.py": b"...", "old.py": None})    # None: the file is removed
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from mlmodeldev.atomic import write_json, writing_to
from mlmodeldev.errors import UsageError
from mlmodeldev.synced import sync_folder

FOLDER = Path(".mlmodeldev")
_INCOMING = FOLDER / "incoming"
_PLAN = "plan.json"

Digests = dict[str, tuple[str | None, str | None]]


def write_file(path: Path, content: bytes) -> None:
    """Write a file and its folders to disk; a script may be executed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if content.startswith(b"#!"):
        path.chmod(path.stat().st_mode | 0o111)


def write_all(root: Path, contents: Mapping[str, bytes | None]) -> None:
    """Write, replace and remove files of a folder, all of them or none.

    Raises:
        UsageError: the disk is full, or the place can't be written.
    """
    incoming, staged = root / _INCOMING, root / f"{_INCOMING}.tmp"
    with writing_to(root):
        try:
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
            for name, content in contents.items():
                if content is not None:
                    write_file(staged / "files" / name, content)
            plan = {
                name: (_digest(root / name), None if content is None else _sha256(content))
                for name, content in contents.items()
            }
            write_json(staged / _PLAN, plan)
            staged.rename(incoming)
            sync_folder(incoming.parent)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        finish(root)


def finish(root: Path) -> bool:
    """Do the rest of what a killed `write_all` had decided on; return whether there was any.

    Raises:
        UsageError: a file was edited since; nothing is touched.
    """
    incoming = root / _INCOMING
    if not (incoming / _PLAN).is_file():
        shutil.rmtree(incoming, ignore_errors=True)  # all was done but this
        return False
    plan: Digests = json.loads((incoming / _PLAN).read_text(encoding="utf-8"))
    left = {name: after for name, (_, after) in plan.items() if _digest(root / name) != after}
    edited = [name for name in left if _digest(root / name) != plan[name][0]]
    if edited:
        raise UsageError(
            f"{edited[0]}: was edited after an update had been cut off; put it back"
            f" (git checkout -- {edited[0]}), and start the update again"
        )
    with writing_to(root):
        for name, after in left.items():
            _take(incoming / "files" / name, root / name, after is None)
        (incoming / _PLAN).unlink()
        shutil.rmtree(incoming)
    return True


def _take(new: Path, path: Path, remove: bool) -> None:
    """Put a staged file in its place, or remove the file, with folders that get empty."""
    if not remove:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.replace(path)
        sync_folder(path.parent)
        return
    path.unlink()
    sync_folder(path.parent)
    if not any(path.parent.iterdir()):
        path.parent.rmdir()


def _digest(path: Path) -> str | None:
    return _sha256(path.read_bytes()) if path.is_file() else None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
