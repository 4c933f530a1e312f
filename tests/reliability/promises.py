"""What must be on the disk after a power cut, whoever reads it: an oracle for any folder of files.

Of each file there is the content that it had when it took its name, and those that took the name
later. Once the folder was synced after that, the file is there for good: as it was then, or newer.
Never is there anything else under the name: a file is whole or not there. A file that grows in its
place begins with all that was in it when it was synced last.

Example::

    promises = Promises(writes)
    promises.broken(after_cut(writes, 120, form), 120)      # ["trial.json: is empty"]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.reliability.disk import Disk, Names, Sync, Writes


@dataclass
class _Version:
    """What a path names from an operation on, and from which on it can't be lost any more."""

    begun: int
    file: int | None
    promised: int | None = None


class Promises:
    """The versions of each file that a recorded process has made.

    Args:
        grows: whether a file of this path is written in place, at its end.
    """

    def __init__(self, writes: Writes, grows: Callable[[str], bool] = lambda _: False) -> None:
        self._grows = grows
        self._versions: dict[str, list[_Version]] = defaultdict(list)
        self._content: dict[int, bytes] = {}
        self._synced: dict[int, list[tuple[int, int]]] = defaultdict(list)  # when, how long
        self._follow(writes)

    def broken(self, disk: Disk, count: int) -> list[str]:
        """Return what is not as it must be after so many operations."""
        there = disk.contents()
        problems = [
            f"{path}: {problem}"
            for path, versions in self._versions.items()
            if (problem := self._problem(path, there.get(path), versions, count))
        ]
        unexpected = [p for p in there if not _is_hidden(p) and p not in self._versions]
        return [*problems, *(f"{path}: was never written" for path in unexpected)]

    def _problem(
        self, path: str, content: bytes | None, versions: list[_Version], count: int
    ) -> str:
        allowed = [
            None if version.file is None else self._content[version.file]
            for version in _allowed(versions, count)
        ]
        if content is None:
            return "" if None in allowed else "is lost"
        if self._grows(path):
            files = [v.file for v in _allowed(versions, count) if v.file is not None]
            sound = any(content.startswith(self._promised(file, count)) for file in files)
            return "" if sound else "has lost what was synced"
        if content in allowed:
            return ""
        former = [v.file for v in versions if v.file is not None]
        if content in [self._content[file] for file in former]:
            return "is an older one, or one that was removed"
        return "is empty" if not content else f"is damaged ({len(content)} bytes)"

    def _promised(self, file: int, count: int) -> bytes:
        """Return what was in a growing file when it was synced last."""
        lengths = [length for when, length in self._synced[file] if when <= count]
        return self._content[file][: lengths[-1]] if lengths else b""

    def _follow(self, writes: Writes) -> None:
        now, waiting = _copied(writes), list[tuple[set[int], _Version]]()
        seen = dict(_shown(now))
        for path, number in seen.items():
            self._versions[path].append(_Version(0, number, 0))
        for count, operation in enumerate(writes.operations, start=1):
            now.apply(operation)
            if isinstance(operation, Sync):
                for file in now.files if operation.what is None else [operation.what]:
                    self._synced[file].append((count, len(now.files.get(file, b""))))
                for folders, version in waiting:
                    if version.promised is None and operation.what in (None, *folders):
                        version.promised = count
            if isinstance(operation, Names):
                shown = dict(_shown(now))
                for path in sorted(seen.keys() | shown.keys()):
                    if seen.get(path) != shown.get(path):
                        version = _Version(count, shown.get(path))
                        self._versions[path].append(version)
                        waiting.append((operation.folders, version))
                seen = shown
        self._content = dict(now.files)


def _allowed(versions: list[_Version], count: int) -> Iterator[_Version]:
    """Yield the versions of which one must be there: the last that is promised, and later ones."""
    yielded = False
    for version in reversed(versions):
        if version.begun <= count:
            yield version
            if version.promised is not None and version.promised <= count:
                return
            yielded = True
    yield _Version(0, None)  # before all of them there was nothing
    assert yielded or versions


def _copied(writes: Writes) -> Disk:
    before = writes.before
    names = {number: dict(each) for number, each in before.folders.items()}
    disk = Disk(dict(before.files), names, dict(before.links))
    for number, kind in writes.kinds.items():
        if kind == "file":
            disk.files[number] = b""
        elif kind == "folder":
            disk.folders[number] = {}
    return disk


def _shown(disk: Disk) -> Iterator[tuple[str, int]]:
    return ((p, n) for p, n in disk.walk() if n in disk.files and not _is_hidden(p))


def _is_hidden(path: str) -> bool:
    """Whether no reader takes a file for a finished one: it, or a folder above it, is hidden."""
    return any(part.startswith(".") and part != ".jobs" for part in path.split("/"))
