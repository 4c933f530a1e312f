"""Which data a trial uses: a fingerprint of each input, and the version where DVC keeps it.

Example::

    fingerprint(Path("data/cola"))      # 64 hexadecimal digits that differ when the content does
    versions([Path("data/cola/in_domain_train.tsv")])
    # [{"pointer": "data/cola.dvc", "md5": "1f0c….dir", "commit": "9a0d…", "committed": True,
    #   "matches": True}]

A large file is hashed once and marked (`mlmodeldev.fetch.verify`); an unpacked folder has the
digest of its archive, any other that of its listing. DVC's pointers are read without DVC.

DVC puts a small YAML file beside what it tracks, ``cola.dvc`` beside ``cola/``, and git keeps
that file. Its MD5 is the version of the data; the commit says where to find it again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.fetch.unpacking import unpacked_digest
from mlmodeldev.fetch.verify import hash_file, mark_verified, recorded_digest
from mlmodeldev.project import run_git

FOLDER = "versions"
"""Holds the pointers of what git ignores, in a tree like theirs."""

_CHECK_BYTES = 64_000_000
"""Larger data are not read again to compare them with their pointer."""

_MARK_BYTES = 16_000_000
"""Smaller files are read each time; larger ones are marked."""

_MOST_SIZES = 10_000
"""In larger folders only names are looked at: a size costs each rank a request to the server."""


def versions(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Return what DVC's pointers say of these files and folders; nothing where there are none.

    Each entry has ``pointer`` (relative to its git repository), ``md5``, ``commit``, ``committed``
    (whether the commit holds this pointer), ``matches`` (whether the data are those of the
    pointer; None: they are large and were not read) and, for imported data, ``revision`` and
    ``url`` of their registry.
    """
    pointers = {pointer: None for path in paths for pointer in _pointers(path.absolute())}
    return [entry for pointer in pointers for entry in _read(pointer)]


def _pointers(path: Path) -> list[Path]:
    """Return the pointer of the path or of the nearest folder that has one."""
    places = [place.parent / f"{place.name}.dvc" for place in (path, *path.parents) if place.name]
    root = next((place for place in path.parents if (place / ".dvc").is_dir()), None)
    if root is not None:
        inner = [place for place in places if place.is_relative_to(root)]
        places = [*inner, *(root / FOLDER / place.relative_to(root) for place in inner)]
    return [pointer for pointer in places if pointer.is_file()][:1]


def _read(pointer: Path) -> list[dict[str, Any]]:
    import yaml

    try:
        content = yaml.safe_load(pointer.read_text("utf-8"))
        folder = pointer.parent / content.get("wdir", ".")
        outs = [(folder / out["path"], str(out["md5"])) for out in content["outs"]]
    except (OSError, ValueError, TypeError, LookupError, RecursionError, yaml.YAMLError):
        return []  # not DVC's, or in the middle of a merge
    root = run_git(pointer.parent, "rev-parse", "--show-toplevel")
    name = str(pointer.relative_to(root)) if root else str(pointer)
    changed = run_git(pointer.parent, "status", "--porcelain", "--", pointer.name)
    entry = {
        "pointer": name,
        "commit": run_git(pointer.parent, "rev-parse", "HEAD"),
        "committed": None if changed is None else not changed,
        **_registry(content),
    }
    return [{**entry, "md5": md5, "matches": _matches(path, md5)} for path, md5 in outs]


def _registry(content: dict[str, Any]) -> dict[str, Any]:
    """Return where ``dvc import`` took the data from."""
    for dependency in content.get("deps") or ():
        repo = dependency.get("repo") if isinstance(dependency, dict) else None
        if repo:
            return {"url": repo.get("url"), "revision": repo.get("rev_lock")}
    return {}


def _matches(path: Path, md5: str) -> bool | None:
    try:
        files = _files(path) if path.is_dir() else [path]
        if sum(file.stat().st_size for file in files) > _CHECK_BYTES:
            return None
        return (_folder_md5(path, files) if path.is_dir() else _md5(path)) == md5
    except OSError:
        return False


def _files(folder: Path) -> list[Path]:
    """Return a tracked folder's files; those that ``.dvcignore`` is to name are ours, not data."""
    ours = {".fetch", ".dvcignore"}
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and not ours & set(path.relative_to(folder).parts)
    ]


def _folder_md5(folder: Path, files: list[Path]) -> str:
    """Return what DVC calls a folder's MD5: that of the JSON of its files' names and MD5s."""
    entries = [{"md5": _md5(f), "relpath": f.relative_to(folder).as_posix()} for f in files]
    listing = json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True)
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"


def _md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def fingerprint(path: Path) -> str:
    """Return 64 hexadecimal digits that differ when the content does.

    Raises:
        UsageError: there is no such file or folder, or it can't be read.
    """
    try:
        return _folder_digest(path) if path.is_dir() else _file_digest(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


def _file_digest(path: Path) -> str:
    large = path.stat().st_size >= _MARK_BYTES
    digest = recorded_digest(path) if large else None
    if digest is None:
        digests = hash_file(path, ["sha256"])
        digest = digests["sha256"]
        if large:
            mark_verified(path, digests)
    return digest


def _folder_digest(path: Path) -> str:
    return unpacked_digest(path) or _listing_digest(path)


def _listing_digest(path: Path) -> str:
    files = []
    for parent, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(parent) / name for name in sorted(names)]
    with_sizes = len(files) <= _MOST_SIZES
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size if with_sizes else ""
        line = f"{file.relative_to(path)}\0{size}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
