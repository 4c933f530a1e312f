"""A disk as a power cut may leave it: what was written, what of it was synced, what may be lost.

Example::

    writes = Writes(before=Disk.read(folder))
    ...                                             # tests.reliability.recorded_writes fills it
    for form in FORMS:
        after_cut(writes, 120, form).write(folder)  # the power went after 120 operations

POSIX promises of a file what fsync(file) was called for, and of its name what fsync(folder) was
called for; nothing else, in no order. File systems keep more than that, each of them something
else: ext4 keeps names in their order, and with delayed allocation names of files whose content is
lost. Each form of a cut below is one that some file system, or all of them, may leave.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.tmp")

# --- what was done


@dataclass(frozen=True)
class Write:
    """Bytes of a file."""

    file: int
    offset: int
    content: bytes


@dataclass(frozen=True)
class Resize:
    """A file's length."""

    file: int
    size: int


@dataclass(frozen=True)
class Names:
    """Changes of names that happen at once: (folder, name) -> what it names then; None: nothing."""

    changes: tuple[tuple[int, str, int | None, int | None], ...]
    """Folder, name, what it named before, what it names now."""

    @property
    def folders(self) -> set[int]:
        return {folder for folder, *_ in self.changes}


@dataclass(frozen=True)
class Sync:
    """A file's content, or a folder's names, are on disk; None: everything is."""

    what: int | None


Operation = Write | Resize | Names | Sync

# --- a disk


@dataclass
class Disk:
    """Files, folders and symbolic links by their numbers; 0 is the top folder."""

    files: dict[int, bytes] = field(default_factory=dict)
    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})
    links: dict[int, str] = field(default_factory=dict)

    @classmethod
    def read(cls, top: Path) -> Disk:
        """Take a folder as it is."""
        disk = cls()
        for name, path in sorted((p.relative_to(top).as_posix(), p) for p in top.rglob("*")):
            parent, _, last = name.rpartition("/")
            number = disk.number()
            folder = disk.find(parent)
            assert folder is not None
            disk.folders[folder][last] = number
            if path.is_symlink():
                disk.links[number] = str(path.readlink())
            elif path.is_dir():
                disk.folders[number] = {}
            else:
                disk.files[number] = path.read_bytes()
        return disk

    def number(self) -> int:
        """Return a number that nothing has."""
        return 1 + max((0, *self.files, *self.folders, *self.links))

    def find(self, name: str) -> int | None:
        """Return what a path names; None: nothing."""
        place: int | None = 0
        for part in filter(None, name.split("/")):
            place = self.folders.get(place, {}).get(part) if place is not None else None
        return place

    def walk(self, folder: int = 0, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield all paths, folders before what is in them."""
        for name, number in sorted(self.folders[folder].items()):
            yield prefix + name, number
            if number in self.folders:
                yield from self.walk(number, f"{prefix}{name}/")

    def contents(self) -> dict[str, bytes]:
        """Return the content of each file by its path."""
        return {name: self.files[n] for name, n in self.walk() if n in self.files}

    def tree(self) -> dict[str, bytes | str | None]:
        """Return everything by its path: bytes of files, targets of links, None for folders."""
        return {name: self.files.get(n, self.links.get(n)) for name, n in self.walk()}

    def digest(self) -> str:
        """Return what is the same for trees that are equal to readers: unfinished files aside."""
        whole = hashlib.sha256()
        for name, content in self.tree().items():
            if _UNFINISHED.search(name):
                continue
            data = content if isinstance(content, bytes) else str(content).encode()
            whole.update(f"{name}\0{len(data)}\0".encode() + data)
        return whole.hexdigest()

    def write(self, top: Path) -> None:
        """Write everything into an empty folder."""
        for name, number in self.walk():
            path = top / name
            if number in self.folders:
                path.mkdir()
            elif number in self.links:
                path.symlink_to(self.links[number])
            else:
                path.write_bytes(self.files[number])

    # --- changes

    def apply(self, operation: Operation) -> None:
        """Do what was done."""
        match operation:
            case Write(file, offset, content):
                old = self.files.get(file, b"").ljust(offset, b"\0")
                self.files[file] = old[:offset] + content + old[offset + len(content) :]
            case Resize(file, size):
                self.files[file] = self.files.get(file, b"")[:size].ljust(size, b"\0")
            case Names(changes):
                for folder, name, before, now in changes:
                    names = self.folders.setdefault(folder, {})
                    if now is not None:
                        names[name] = now
                    elif names.get(name) == before:
                        del names[name]


@dataclass
class Writes:
    """What was done to a folder, in order, and what it was like before.

    Attributes:
        before: all of it is on disk.
        kinds: of each number that came later: ``file``, ``folder`` or a link's target after "->".
    """

    before: Disk
    operations: list[Operation] = field(default_factory=list)
    kinds: dict[int, str] = field(default_factory=dict)


# --- a cut

FORMS = (
    "all of it",
    "what was synced",
    "names without content",
    "names with half of the content",
    "content without names",
    "some of it",
)


def after_cut(writes: Writes, count: int, form: str, seed: int = 0) -> Disk:
    """Return what is on disk if the power goes after so many operations.

    Args:
        form: which of what was not synced has come to the disk all the same, of `FORMS`.
        seed: of the choice, for ``some of it``.
    """
    chance = random.Random(f"{seed} {count}")
    operations = writes.operations[:count]
    durable = _durable(operations)
    disk = Disk(
        dict(writes.before.files),
        {number: dict(names) for number, names in writes.before.folders.items()},
        dict(writes.before.links),
    )
    for number, kind in writes.kinds.items():
        if kind == "file":
            disk.files[number] = b""
        elif kind == "folder":
            disk.folders[number] = {}
        else:
            disk.links[number] = kind.removeprefix("->")
    for operation, is_durable in zip(operations, durable, strict=True):
        for each in [operation] if is_durable else _left(operation, form, chance):
            disk.apply(each)
    return disk


def _durable(operations: Sequence[Operation]) -> list[bool]:
    """Return of each operation whether a later one has brought it to the disk for sure."""
    synced: set[int] = set()
    everything = False
    durable = []
    for operation in reversed(operations):
        match operation:
            case Sync(None):
                everything = True
            case Sync(what) if what is not None:
                synced.add(what)
        needed = operation.folders if isinstance(operation, Names) else None
        if isinstance(operation, Write | Resize):
            needed = {operation.file}
        durable.append(everything or (needed is not None and needed <= synced))
    return durable[::-1]


def _left(operation: Operation, form: str, chance: random.Random) -> list[Operation]:
    """Return what a form of a cut leaves of an operation that was not synced."""
    if isinstance(operation, Sync):
        return []
    is_name = isinstance(operation, Names)
    if form == "all of it" or (form.startswith("names") and is_name):
        return [operation]
    if form == "content without names" and not is_name:
        return [operation]
    if form == "names with half of the content":
        return _half(operation)
    if form == "some of it":
        luck = chance.random()
        return [operation] if luck < 0.5 else _half(operation) if luck < 0.7 else []
    return []


def _half(operation: Operation) -> list[Operation]:
    """Return the first half of what was written, and zeros for the rest; nothing of the others."""
    if not isinstance(operation, Write):
        return []
    half, size = len(operation.content) // 2, operation.offset + len(operation.content)
    content = operation.content[:half].ljust(len(operation.content), b"\0")
    return [Write(operation.file, operation.offset, content)] if size else []


def same(disk: Disk, top: Path) -> list[str]:
    """Return the paths whose content is not the same on the disk and in a folder."""
    ours, theirs = disk.tree(), Disk.read(top).tree()
    names = sorted(set(ours) | set(theirs))
    return [n for n in names if ours.get(n, "missing") != theirs.get(n, "missing")]


def cleared(folder: Path) -> Path:
    """Return an empty folder in this place."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)  # noqa: PTH103
    return folder
