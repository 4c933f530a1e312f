"""The project: its data on the disk, the sweep file, the copy of the code that jobs get."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlmodeldev.doctor.line import Line, Scope, fail, folder, ok, warn
from mlmodeldev.errors import UsageError

_LARGE_CODE = 0.5
"""Share of the largest copy from which on it is told."""
_MOST_HASHED = 2 * 2**30
"""Bytes of files without a marker that are read for their digest."""
_PATHS = ("folder", "files", "file", "path", "root")
"""Arguments of data that name where they lie."""


# --- data


def data(scope: Scope) -> Iterator[Line]:
    """Look for the trial's data, and compare what was fetched with its digests."""
    from mlmodeldev.fetch.manifest import names

    yield from _named_paths(scope)
    manifests = names()
    wanted = [name for name in _wanted(scope.settings.data) if name in manifests]
    there = [name for name in manifests if (scope.data / name).is_dir()]
    for name in there:
        yield from _dataset(name, scope.data)
    if wanted and not any(name.startswith(tuple(wanted)) for name in there):
        what = f"{wanted[0]} is not in {scope.data}; the first trial fetches it"
        if scope.submits:
            mend = f"python -m mlmodeldev.data fetch {wanted[0]} --directory {scope.data}"
            yield warn(f"{what}, which fails on nodes without a network", mend)
        else:
            yield ok(what)
    elif not wanted and not there:
        yield ok("nothing that is fetched is needed")


def _named_paths(scope: Scope) -> Iterator[Line]:
    """Look for the files and folders that arguments of the data name."""
    for key, value in scope.settings.data.items():
        if key in _PATHS and isinstance(value, str) and not re.search(r"[*?\[]", value):
            path = folder(value) if Path(value).expanduser().is_absolute() else scope.root / value
            if not path.exists():
                yield fail(
                    f"data.{key}={value}: there is no such file or folder", f"ls {path.parent}"
                )


def _wanted(settings: dict[str, Any]) -> list[str]:
    """Return what may be the name of the data's manifest: an argument, or the class's name."""
    kind = str(settings.get("_target_", "")).rpartition(".")[2]
    texts = [value for value in settings.values() if isinstance(value, str)]
    return [*texts, kind.lower()]


def _dataset(name: str, directory: Path) -> Iterator[Line]:
    """Compare a dataset's files with its manifest."""
    from mlmodeldev.fetch.manifest import load

    manifest, place = load(name), directory / name
    fetch = f"python -m mlmodeldev.data fetch {name} --directory {directory}"
    states = {entry.source.name: _state(entry, place) for entry in manifest.entries}
    present = {entry.unpack or entry.source.name for entry in manifest.entries
               if states[entry.source.name] in ("whole", "not read")}  # fmt: skip
    gone = [
        path
        for path in manifest.layout
        if path.split("/")[0] in present and not (place / path).exists()
    ]
    damaged = [file for file, state in states.items() if state == "damaged"]
    if damaged:
        yield fail(f"{place / damaged[0]} is not what was published (digest)", fetch)
    elif gone:
        yield fail(f"{place / gone[0]} is gone", f"rm -r {place}; {fetch}")
    elif not present:
        yield warn(f"{place} is there, its files are not", fetch)
    elif "not read" in states.values():
        yield ok(f"{name} is there; too large to be read here, 'data fetch' verifies it")
    else:
        yield ok(f"{name} is there, its digests are right")


def _state(entry: Any, place: Path) -> str:
    """Return ``whole``, ``damaged``, ``missing`` or ``not read`` of one file of a dataset."""
    from mlmodeldev.fetch.source import FetchError
    from mlmodeldev.fetch.unpacking import is_unpacked
    from mlmodeldev.fetch.verify import check_file, check_size, is_verified

    file, source = place / entry.source.name, entry.source
    if not file.is_file():
        unpacked = entry.unpack and source.sha256
        there = unpacked and is_unpacked(place / entry.unpack, {"sha256": source.sha256})
        return "whole" if there else "missing"
    if is_verified(file, source):
        return "whole"
    try:
        if file.stat().st_size > _MOST_HASHED:
            check_size(file, source)
            return "not read"
        check_file(file, source)
    except FetchError:
        return "damaged"
    return "whole"


# --- the sweep file, the code


def sweep(scope: Scope) -> Iterator[Line]:
    """Tell of the sweep file what ``sweep check`` and ``submit`` say of it."""
    name = scope.args.sweep if scope.args else "sweep/config.yaml"
    check = f"python -m mlmodeldev.sweep check {name}"
    if scope.problem:
        yield fail(scope.problem, check)
    for note in scope.notes:
        yield warn(note, check)
    if scope.sweep is None or scope.notes:
        return
    if scope.sweep.is_search:
        yield ok(f"{name}: a search, {len(scope.sweep.entries)} trials begun")
    else:
        yield ok(f"{name}: {len(scope.sweep.entries)} trials")


def snapshot(scope: Scope) -> Iterator[Line]:
    """Measure the copy of the code that jobs get, and look for keys in it."""
    from mlmodeldev.slurm.snapshot import LARGEST, check_files, snapshot_files

    if not scope.submits:
        return
    files = snapshot_files(scope.root)
    largest = max(files.values(), key=lambda file: file.stat().st_size)
    mend = f"git rm --cached {largest}; echo {largest.name} >> .gitignore"
    try:
        size = check_files(files)
    except UsageError as error:
        is_key = "holds a key" in str(error)
        yield fail(str(error), "mlmodeldev secrets" if is_key else mend)
        return
    what = f"code for the jobs: {len(files)} files, {size / 2**20:.1f} MiB"
    if size > _LARGE_CODE * LARGEST:
        yield warn(f"{what} of {LARGEST / 2**20:.0f} MiB; {largest} is the largest", mend)
    else:
        yield ok(what)
