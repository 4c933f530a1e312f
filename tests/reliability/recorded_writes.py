"""Every change that a process makes in a folder, as the system's kernel sees it, by strace(1).

Python's own files, torch's writer in C++ and safetensors' in Rust, rmtree and the loader's workers:
what a process or a thread of it does in the folder is in the record. What is written through a
shared memory map is no system call; the content of such a file is taken when it is over.

Example::

    before = Disk.read(folder)
    trials.run(..., patch=partial(begin_recording, file))
    wait_for_record(file)
    writes = read_writes(file, folder, before)
    assert same(after_cut(writes, len(writes.operations), "all of it"), folder) == []
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from tests.reliability.disk import Disk, Names, Resize, Sync, Write, Writes

CALLS = (
    *("open", "openat", "creat", "write", "pwrite64", "writev", "lseek", "sendfile"),
    *("copy_file_range", "ftruncate", "truncate", "fallocate", "fsync", "fdatasync", "syncfs"),
    *("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "rmdir"),
    *("mkdir", "mkdirat", "symlink", "symlinkat", "mmap", "sync"),
)
_LONGEST = 32 << 20
_ANY_TRACER = 0x59616D61  # PR_SET_PTRACER


def missing() -> str:
    """Return why nothing can be recorded here; empty: it can."""
    if shutil.which("strace") is None:
        return "there is no strace"
    done = subprocess.call(["strace", "-qq", "-o", "/dev/null", "true"], stderr=subprocess.DEVNULL)
    return "" if done == 0 else "this process may trace no other"


def begin_recording(file: Path) -> None:
    """Record what this process and those that it makes do, until they end."""
    ctypes.CDLL(None).prctl(_ANY_TRACER, ctypes.c_ulong(-1), 0, 0, 0)  # refused: not needed
    command = ["strace", "-f", "-qq", "-y", "-xx", "-s", str(_LONGEST), "-o", str(file)]
    command += ["-e", f"trace={','.join(CALLS)}", "-p", str(os.getpid())]
    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while "TracerPid:\t0" in Path("/proc/self/status").read_text():
        assert tracer.poll() is None, "strace has ended"
        time.sleep(0.01)
    file.with_suffix(".pid").write_text(str(tracer.pid))


def wait_for_record(file: Path) -> None:
    """Return when the record is complete: strace ends after the last process that it follows."""
    stat = Path("/proc", file.with_suffix(".pid").read_text(), "stat")
    for _ in range(6000):
        try:
            if stat.read_text().rpartition(")")[2].split()[0] in "ZX":
                return
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError("strace does not end")


# --- the record, read

_LINE = re.compile(r"^(?P<process>\d+) +(?P<rest>.*)$")
_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|0x[0-9a-f]+)")
_ARGUMENT = re.compile(r'"(?:[^"\\]|\\.)*"(?:\.\.\.)?|[^,\[\]{}"<]*<[^>]*>|\[.*?\]|\{.*?\}|[^,]+')


def read_writes(file: Path, top: Path, before: Disk) -> Writes:
    """Return what a record tells of a folder.

    Args:
        before: the folder when the record began; of it as it is now, what was mapped is taken.
    """
    reader = _Reader(top, before)
    begun: dict[str, str] = {}
    for line in file.read_text().splitlines():
        matched = _LINE.match(line)
        assert matched, line[:200]
        process, rest = matched["process"], matched["rest"]
        if rest.endswith("<unfinished ...>"):
            begun[process] = rest.removesuffix("<unfinished ...>").rstrip()
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>(.*)$", rest):
            rest = begun.pop(process) + resumed[1]
        if call := _CALL.match(rest):
            reader.take(call["name"], _ARGUMENT.findall(call["arguments"]), call["result"])
    reader.add_mapped()
    return reader.writes


class _Reader:
    """Follows a record: what is where, and how far each file is written."""

    def __init__(self, top: Path, before: Disk) -> None:
        self.top = f"{top}/"
        self.writes = Writes(before)
        self.now = Disk(
            dict(before.files),
            {number: dict(names) for number, names in before.folders.items()},
            dict(before.links),
        )
        self._next = before.number()
        self._places: dict[int, int] = {}
        self._appended: set[int] = set()
        self._mapped: list[tuple[int, int]] = []  # files, and when

    def take(self, name: str, arguments: list[str], result: str) -> None:
        """Take a call."""
        arguments = [argument.strip() for argument in arguments]
        if result.startswith("-"):
            return
        method = getattr(self, f"_{name}", None)
        assert method is not None, f"{name}: not read"
        method(arguments, result)

    def add_mapped(self) -> None:
        """Let what was written through memory have been written when it was mapped."""
        paths = {number: name for name, number in self.now.walk()}
        for number, when in reversed(self._mapped):
            if number in paths:
                content = Path(self.top, paths[number]).read_bytes()
                self.writes.operations.insert(when, Write(number, 0, content))

    # --- names

    def _inside(self, path: str) -> str | None:
        """Return a path below the top; None: it is elsewhere."""
        path = os.path.normpath(path)
        if path == self.top.rstrip("/"):
            return ""
        return path.removeprefix(self.top) if path.startswith(self.top) else None

    def _at(self, folder: str, name: str) -> str | None:
        path = _text(name)
        return self._inside(path if path.startswith("/") else f"{_path_of(folder)}/{path}")

    def _entry(self, path: str) -> tuple[int, str]:
        parent, _, name = path.rpartition("/")
        folder = self.now.find(parent)
        assert folder is not None, f"{path}: in no folder"
        return folder, name

    def _add(self, operation: Write | Resize | Names | Sync) -> None:
        self.writes.operations.append(operation)
        self.now.apply(operation)

    def _new(self, path: str, kind: str) -> int:
        number, self._next = self._next, self._next + 1
        self.writes.kinds[number] = kind
        if kind == "file":
            self.now.files[number] = b""
        elif kind == "folder":
            self.now.folders[number] = {}
        else:
            self.now.links[number] = kind.removeprefix("->")
        self._add(Names(((*self._entry(path), None, number),)))
        return number

    # --- opened and written

    def _openat(self, a: list[str], result: str) -> None:
        path, flags = self._at(a[0], a[1]), a[2]
        if path is None or not {"O_WRONLY", "O_RDWR"} & set(flags.split("|")):
            return
        number = self.now.find(path)
        if number is None:
            number = self._new(path, "file")
        elif "O_TRUNC" in flags and self.now.files[number]:
            self._add(Resize(number, 0))
        self._places[number] = 0
        (self._appended.add if "O_APPEND" in flags else self._appended.discard)(number)

    def _open(self, a: list[str], result: str) -> None:
        self._openat(["AT_FDCWD</>", *a], result)

    def _creat(self, a: list[str], result: str) -> None:
        self._open([a[0], "O_WRONLY|O_CREAT|O_TRUNC"], result)

    def _file(self, descriptor: str) -> int | None:
        """Return the file that is open; None: it is elsewhere, or has no name any more."""
        path = self._inside(_path_of(descriptor))
        number = self.now.find(path) if path is not None else None
        return number if number in self.now.files else None

    def _put(self, number: int, content: bytes) -> None:
        end = len(self.now.files[number])
        # what was open before the record began was opened to append
        place = end if number in self._appended else self._places.get(number, end)
        self._add(Write(number, place, content))
        self._places[number] = place + len(content)

    def _write(self, a: list[str], result: str) -> None:
        if (number := self._file(a[0])) is not None:
            self._put(number, _bytes(a[1])[: int(result)])

    def _writev(self, a: list[str], result: str) -> None:
        if (number := self._file(a[0])) is not None:
            parts = re.findall(r'iov_base=("[^"]*")', ",".join(a[1:]))
            self._put(number, b"".join(map(_bytes, parts))[: int(result)])

    def _pwrite64(self, a: list[str], result: str) -> None:
        if (number := self._file(a[0])) is not None:
            self._add(Write(number, int(a[3]), _bytes(a[1])[: int(result)]))

    def _lseek(self, a: list[str], result: str) -> None:
        if (number := self._file(a[0])) is not None:
            self._places[number] = int(result)

    def _sendfile(self, a: list[str], result: str) -> None:
        number = self._file(a[0])
        if number is None:
            return
        offset = re.search(r"\[(\d+)\]", a[2])
        source = self._file(a[1])
        whole = self.now.files[source] if source is not None else Path(_path_of(a[1])).read_bytes()
        begin = int(offset[1]) if offset else 0
        self._put(number, whole[begin : begin + int(result)])

    def _copy_file_range(self, a: list[str], result: str) -> None:
        assert self._file(a[2]) is None, "copy_file_range: not read"

    def _ftruncate(self, a: list[str], result: str) -> None:
        if (number := self._file(a[0])) is not None:
            self._add(Resize(number, int(a[1])))

    def _truncate(self, a: list[str], result: str) -> None:
        assert self._at("AT_FDCWD</>", a[0]) is None, "truncate: not read"

    def _fallocate(self, a: list[str], result: str) -> None:
        number = self._file(a[0])
        if number is not None and "KEEP_SIZE" not in a[1]:
            size = int(a[2]) + int(a[3])
            if size > len(self.now.files[number]):
                self._add(Resize(number, size))

    def _mmap(self, a: list[str], result: str) -> None:
        if "MAP_SHARED" not in a[3] or "PROT_WRITE" not in a[2]:
            return
        if (number := self._file(a[4])) is not None:
            self._mapped.append((number, len(self.writes.operations)))

    # --- synced

    def _fsync(self, a: list[str], result: str) -> None:
        path = self._inside(_path_of(a[0]))
        number = self.now.find(path) if path is not None else None
        if number is not None:
            self._add(Sync(number))

    _fdatasync = _fsync

    def _syncfs(self, a: list[str], result: str) -> None:
        self._add(Sync(None))

    _sync = _syncfs

    # --- named

    def _mkdirat(self, a: list[str], result: str) -> None:
        if path := self._at(a[0], a[1]):
            self._new(path, "folder")

    def _mkdir(self, a: list[str], result: str) -> None:
        self._mkdirat(["AT_FDCWD</>", *a], result)

    def _symlinkat(self, a: list[str], result: str) -> None:
        if path := self._at(a[1], a[2]):
            self._new(path, f"->{_text(a[0])}")

    def _symlink(self, a: list[str], result: str) -> None:
        self._symlinkat([a[0], "AT_FDCWD</>", a[1]], result)

    def _linkat(self, a: list[str], result: str) -> None:
        source, path = self._at(a[0], a[1]), self._at(a[2], a[3])
        assert path is None or source is not None, "a link to a file of another place: not read"
        if path and source:
            self._add(Names(((*self._entry(path), None, self.now.find(source)),)))

    def _link(self, a: list[str], result: str) -> None:
        self._linkat(["AT_FDCWD</>", a[0], "AT_FDCWD</>", a[1]], result)

    def _unlinkat(self, a: list[str], result: str) -> None:
        if path := self._at(a[0], a[1]):
            self._add(Names(((*self._entry(path), self.now.find(path), None),)))

    def _unlink(self, a: list[str], result: str) -> None:
        self._unlinkat(["AT_FDCWD</>", *a], result)

    _rmdir = _unlink

    def _renameat2(self, a: list[str], result: str) -> None:
        old, new = self._at(a[0], a[1]), self._at(a[2], a[3])
        if old is None and new is None:
            return
        assert old, "a rename from elsewhere: not read"
        assert new, "a rename to elsewhere: not read"
        moved, there = self.now.find(old), self.now.find(new)
        swapped = there if "RENAME_EXCHANGE" in a[-1] else None
        self._add(Names(((*self._entry(old), moved, swapped), (*self._entry(new), there, moved))))

    def _renameat(self, a: list[str], result: str) -> None:
        self._renameat2([*a, "0"], result)

    def _rename(self, a: list[str], result: str) -> None:
        self._renameat(["AT_FDCWD</>", a[0], "AT_FDCWD</>", a[1]], result)


def _bytes(argument: str) -> bytes:
    assert not argument.endswith("..."), "strace has cut a text short"
    return bytes.fromhex(argument.strip('"').replace("\\x", ""))


def _text(argument: str) -> str:
    return os.fsdecode(_bytes(argument))


def _path_of(descriptor: str) -> str:
    """Return the path of a descriptor, ``7</a/b>``; of a file without a name, no real one."""
    inner = descriptor.partition("<")[2].rpartition(">")[0]
    return re.sub(r"\\x([0-9a-f]{2})", lambda m: chr(int(m[1], 16)), inner)
