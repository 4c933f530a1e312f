"""The code that jobs run: a copy made at submit, so that later edits don't reach queued trials.

One copy for each content, ``runs/.snapshots/<digest>/``, which appears whole or not at all; beside
the files lie the commit and what differed from it.

Example::

    code = take_snapshot(root, Path("runs"))        # runs/.snapshots/3f0c9a12/
    remove_unused(Path("runs"), keep={code})
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path

from mlmodeldev.atomic import remove_at_once, replace_folder, write_json
from mlmodeldev.errors import UsageError
from mlmodeldev.project import run_git
from mlmodeldev.secrets import mask, refuse_secrets
from mlmodeldev.trial.provenance import SNAPSHOT_CHANGES, SNAPSHOT_FILE, provenance, untracked
from mlmodeldev.trial.software import LIBRARY, library_files
from mlmodeldev.trial.source import code_files, differences

log = logging.getLogger(__name__)

FOLDER = ".snapshots"
LARGEST = 100 * 2**20
"""Bytes of a copy at most; code is small, data belongs where git does not look."""


def take_snapshot(root: Path, runs_dir: Path) -> Path:
    """Copy the project's code and the library's, unless that copy is there already, and whole.

    Jobs import the copy's library, so that updating the installed one does not reach them. A copy
    that is damaged, by a disk or by hand, is made anew: it would be taken for what its name says.

    Raises:
        UsageError: the files are too large, hold a key, or can't be written.
    """
    files = snapshot_files(root)
    target = runs_dir / FOLDER / digest_of(files)
    if _is_whole(target, files):
        target.touch()  # in use again: `is_recent` keeps it until the jobs are submitted
        return target
    if target.exists():
        log.warning("%s: differs from the code that it was copied from; it is copied anew", target)
    check_files(files)
    with replace_folder(target) as folder:
        for name, file in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, folder / name)
        (folder / SNAPSHOT_CHANGES).write_text(mask(run_git(root, "diff", "HEAD") or ""))
        new = untracked([name for name in files if name.endswith(".py")], root)
        facts = {
            "version": 1,
            **provenance(root),
            "untracked": new,
            "differences": asdict(differences(root)),
        }
        write_json(folder / SNAPSHOT_FILE, facts)
    return target


def _is_whole(copy: Path, files: Collection[str]) -> bool:
    """Whether a copy holds what its name is the digest of."""
    if not (copy / SNAPSHOT_FILE).is_file():
        return False
    try:
        return digest_of({name: copy / name for name in files}) == copy.name
    except OSError:
        return False


def snapshot_files(root: Path) -> dict[str, Path]:
    """Return the files of a copy by their places in it: the project's, and the library's."""
    files = {name: root / name for name in code_files(root)}
    if "mlmodeldev/__init__.py" not in files:  # a clone holds its own
        files |= {f"mlmodeldev/{name.as_posix()}": LIBRARY / name for name in library_files()}
    return files


def check_files(files: Mapping[str, Path]) -> int:
    """Return the bytes of a copy.

    Raises:
        UsageError: the files are too large, or one holds a key or leads to a place of keys.
    """
    size = _check_size(files)
    _refuse_links_to_hidden(files)
    refuse_secrets(files.values())
    return size


def _refuse_links_to_hidden(files: Mapping[str, Path]) -> None:
    """Refuse a link that leads out of the project to a hidden place: keys and passwords lie there.

    Raises:
        UsageError: there is one.
    """
    for name, path in files.items():
        if not any(place.is_symlink() for place in (path, *_parents_in_project(name, path))):
            continue
        target = path.resolve()
        root = _root_of(name, path).resolve()
        if target.is_relative_to(root):
            continue
        if any(part.startswith(".") for part in target.parts):
            raise UsageError(
                f"{path}: is a link to {target}, a hidden place, where keys lie; jobs get no copy"
                " of it: remove the link, put the file itself in its place, or let git ignore it"
            )


def _root_of(name: str, path: Path) -> Path:
    return path.parents[len(Path(name).parts) - 1]


def _parents_in_project(name: str, path: Path) -> list[Path]:
    return list(path.parents[: len(Path(name).parts) - 1])


def digest_of(files: Mapping[str, Path]) -> str:
    """Return a digest of names, contents and modes."""
    whole = hashlib.sha256()
    for name, path in files.items():
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{name}\0{path.stat().st_mode & 0o111}\0{content}\n".encode())
    return whole.hexdigest()[:16]


def _check_size(files: Mapping[str, Path]) -> int:
    sizes = {path: path.stat().st_size for path in files.values()}
    whole = sum(sizes.values())
    if whole > LARGEST:
        path = max(sizes, key=lambda path: sizes[path])
        raise UsageError(
            f"{path}: {sizes[path] / 2**20:.0f} MiB; the code is copied for the jobs, and"
            f" may be {LARGEST / 2**20:.0f} MiB in all: put data where git ignores it"
        )
    return whole


def remove_unused(runs_dir: Path, keep: Collection[Path]) -> list[Path]:
    """Remove the copies that are not to be kept; return them."""
    folders = [p for p in (runs_dir / FOLDER).glob("*") if p.is_dir()]
    unused = [folder for folder in sorted(folders) if folder not in keep]
    for folder in unused:
        remove_at_once(folder)
    return unused
