"""The part of a trial's code that its commit does not give, in its folder: ``source.zip``.

Edited files and those that git does not track lie in it whole, so that a copy of the commit and
this file make the code again; without git, all of the project's files do. What holds a key, and
what is too large, is left out and named. ``source.json`` in it lists the files with their digests,
those that were removed, and the settings that the attempt ran with.

Example::

    keep_source(folder, root, code, settings.model_dump(), former=None)
    read_source(folder).files          # {"nets/mine.py": "9a0d...64 digits"}
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import atomic_write
from mlmodeldev.errors import UsageError
from mlmodeldev.project import git_output, run_git
from mlmodeldev.secrets import refuse_in_text
from mlmodeldev.secrets.refusal import LARGEST, text_of
from mlmodeldev.trial.provenance import copied_facts, untracked

SOURCE = "source.zip"
"""File of a trial's folder; ``source-N.zip`` is that of attempt N, where a later one differs."""

LARGEST_IN_ALL = 8 * 2**20
"""Bytes of all files together; one alone may have as many as are looked through for keys."""
MOST_FILES = 1000
"""Files beside those that the trial's code is known to be made of."""
NO_CODE = {
    "runs",
    "data",
    "wandb",
    "build",
    "dist",
    "outputs",
    "multirun",
    "mlruns",
    "node_modules",
}
"""Folders of the top level that are no code, where git can't say what is."""

_LIST = "source.json"
_NAMES = ("--name-status", "-z", "--no-renames", "--relative")
_LARGEST_DIGEST = 64 * 2**20
"""Bytes of a file that is left out, up to which it is read for its digest."""
_DATE = (1980, 1, 1, 0, 0, 0)
"""Of each file in the archive, so that equal code is an equal archive."""


@dataclass
class Differences:
    """How a project differs from its commit.

    Attributes:
        files: edited or not tracked, below the project.
        deleted: tracked, and not there.
        prefix: the project's place below the repository's top; empty or with ``/`` at its end.
    """

    files: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    prefix: str = ""


@dataclass
class Source:
    """What ``source.zip`` lists.

    Attributes:
        prefix, deleted: as of `Differences`.
        files: the SHA-256 of each file in it.
        left_out: of each that is not in it, why, and its SHA-256 where it was taken.
        uncounted: files beyond `MOST_FILES`, which were not looked at.
        settings: what the attempt ran with.
    """

    prefix: str = ""
    files: dict[str, str] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    left_out: dict[str, dict[str, str | None]] = field(default_factory=dict)
    uncounted: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def digests(self) -> dict[str, str | None]:
        """The SHA-256 of each file, kept or left out."""
        return {**self.files, **{name: each["sha256"] for name, each in self.left_out.items()}}


def keep_source(
    folder: Path, root: Path, code: Iterable[str], settings: Mapping[str, Any], former: int | None
) -> None:
    """Write ``source.zip``; what a former attempt wrote of other content keeps its number.

    Args:
        folder: the trial's.
        root: the project's.
        code: files that the trial's code is made of (`mlmodeldev.trial.code`).
        settings: nested; ``artefacts`` names folders that hold no code.
        former: number of the attempt before; None: this is the first.
    """
    content = archive(root, code, settings)
    file = folder / SOURCE
    if file.is_file() and file.read_bytes() == content:
        return
    if former and file.is_file():
        file.replace(file.with_name(f"{file.stem}-{former}{file.suffix}"))
    with atomic_write(file) as opened:
        opened.write(content)


def read_source(folder: Path) -> Source | None:
    """Return what ``source.zip`` lists; None: there is none, as of earlier versions.

    Raises:
        UsageError: it is damaged.
    """
    file = folder / SOURCE
    if not file.is_file():
        return None
    try:
        with zipfile.ZipFile(file) as opened:
            return Source(**json.loads(opened.read(_LIST)))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{file}: is damaged: {error}") from None


def read_file(folder: Path, name: str) -> bytes | None:
    """Return the content of a file in ``source.zip``; None: it is not there, or is damaged."""
    try:
        with zipfile.ZipFile(folder / SOURCE) as opened:
            return opened.read(f"files/{name}")
    except (OSError, KeyError, zipfile.BadZipFile):
        return None


def unpack(folder: Path, source: Source, root: Path) -> None:
    """Write the files of ``source.zip`` into a project, and remove those that were removed.

    Raises:
        UsageError: a file is damaged, or its name leads out of the project.
    """
    top = root.resolve()
    for name in (*source.deleted, *source.files):
        if not (root / name).resolve().is_relative_to(top):
            raise UsageError(f"{folder / SOURCE}: {name} leads out of the project")
    for name in source.deleted:
        (root / name).unlink(missing_ok=True)
    with zipfile.ZipFile(folder / SOURCE) as opened:
        for name in source.files:
            target = root / name
            try:
                member = opened.getinfo(f"files/{name}")
                content = opened.read(member)
            except (KeyError, zipfile.BadZipFile) as error:
                raise UsageError(f"{folder / SOURCE}: is damaged: {error}") from None
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(0o755 if (member.external_attr >> 16) & 0o100 else 0o644)


# --- which files


def differences(root: Path, apart: Iterable[str] = ()) -> Differences:
    """Return how the project differs from its commit; without git, all of its files differ.

    In a copy that `submit` has made, what differed where it was copied from.

    Args:
        root: the project's folder.
        apart: folders below it that hold no code, beside `NO_CODE`; they are not looked into.
    """
    copied = copied_facts(root)
    if copied is not None:
        listed: dict[str, Any] = copied.get("differences") or {"files": copied.get("untracked", [])}
        return Differences(**listed)
    no_code = {*NO_CODE, *apart}
    try:
        prefix = git_output(root, "rev-parse", "--show-prefix").decode().strip()
        changed = git_output(root, "diff", *_NAMES, "HEAD")
    except UsageError:
        return Differences(files=sorted(_walk(root, no_code)))
    excluded = [f"--exclude=/{prefix}{name}/" for name in sorted(no_code)]
    new = run_git(
        root, "ls-files", "-z", "--others", "--exclude-standard", "--exclude=.*", *excluded
    )
    words = changed.decode(errors="replace").split("\0")
    states = dict(zip(words[1::2], words[::2], strict=False))
    edited = {name for name, state in states.items() if state != "D"}
    edited |= {name for name in (new or "").split("\0") if name}
    deleted = [name for name, state in states.items() if state == "D"]
    return Differences(sorted(edited), sorted(deleted), prefix)


def code_files(root: Path) -> list[str]:
    """Return the files that git tracks or would; outside of git, all but data and hidden ones."""
    listed = run_git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = listed.split("\0") if listed is not None else _walk(root, NO_CODE)
    return sorted(name for name in set(names) if name and (root / name).is_file())


def _walk(root: Path, no_code: Collection[str]) -> Iterator[str]:
    """Yield a project's files; folders of data and trials, which may be vast, are not entered."""
    for folder, folders, files in os.walk(root):
        place = Path(folder).relative_to(root)
        names = [(place / name).as_posix() for name in folders if _is_shown(name)]
        folders[:] = [Path(name).name for name in names if name not in no_code]
        yield from ((place / name).as_posix() for name in files if _is_shown(name))


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name != "__pycache__"


# --- the archive


def archive(root: Path, code: Iterable[str], settings: Mapping[str, Any]) -> bytes:
    """Return ``source.zip``."""
    imported = set(code)
    differing = differences(root, _folders_apart(root, settings))
    needed = imported & {*differing.files, *untracked(imported, root)}
    others = [name for name in differing.files if name not in needed]
    source = Source(differing.prefix, deleted=differing.deleted, settings=dict(settings))
    source.uncounted = max(0, len(others) - MOST_FILES)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        room = LARGEST_IN_ALL
        for name in [*sorted(needed), *others[:MOST_FILES]]:
            room -= _add(opened, root, name, source, room)
        text = json.dumps(asdict(source), indent=1, default=str)
        opened.writestr(zipfile.ZipInfo(_LIST, _DATE), text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _folders_apart(root: Path, settings: Mapping[str, Any]) -> list[str]:
    """Return the folders of trials and data that lie in the project, by their names below it."""
    artefacts = settings.get("artefacts") or {}
    given = [Path(str(artefacts.get(name, name))) for name in ("runs_dir", "data_dir")]
    folders = [(root / path.expanduser()).absolute() for path in given]
    inside = [path for path in folders if path != root and path.is_relative_to(root)]
    return [path.relative_to(root).as_posix() for path in inside]


def _add(opened: zipfile.ZipFile, root: Path, name: str, source: Source, room: int) -> int:
    """Put a file into the archive, or among those left out; return the bytes it took."""
    file = root / name
    if not file.is_file():  # a submodule's folder; or removed meanwhile
        return 0
    size = file.stat().st_size
    reason = f"{size} bytes: too large" if size > min(LARGEST, room) else ""
    content = file.read_bytes() if size <= _LARGEST_DIGEST else None
    digest = None if content is None else hashlib.sha256(content).hexdigest()
    reason = reason or ("is a link" if file.is_symlink() else "") or _key_in(content or b"", name)
    if reason or content is None or digest is None:
        source.left_out[name] = {"reason": reason, "sha256": digest}
        return 0
    member = zipfile.ZipInfo(f"files/{name}", _DATE)
    member.external_attr = (0o100644 | (file.stat().st_mode & 0o111)) << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    opened.writestr(member, content)
    source.files[name] = digest
    return size


def _key_in(content: bytes, name: str) -> str:
    """Return that a file holds a key, and which; nothing: an empty text."""
    try:
        refuse_in_text(text_of(content) or "", name)
    except UsageError as error:
        return str(error).partition("; ")[0]
    return ""
