"""Run many inputs of a target: seeded by their number, each found fault once."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.target import Target, empty

MEMORY_BYTES = 4 << 30
"""More than an input may make a process take on top of what it has."""
REPEATED = 200
"""Times that one fault may come before the target is given up."""


@dataclass
class Outcome:
    """What came of a target.

    Attributes:
        faults: by their place, the number of the first input and what was seen.
        seconds: of computing.
    """

    target: str
    tried: int = 0
    seconds: float = 0.0
    faults: dict[str, tuple[int, str]] = field(default_factory=dict)


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """Give a folder where nobody waits for a disk."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def made(target: Target, number: int) -> object:
    """Return an input by its number: the same one for ever."""
    return target.make(random.Random(f"{target.name} {number}"))


def run(target: Target, numbers: range, forks: bool = True) -> Outcome:
    """Try inputs; a fault ends nothing.

    Args:
        target: what.
        numbers: of the inputs.
        forks: whether whole commands get a process each.
    """
    outcome, repeated = Outcome(target.name), 0
    with folder_in_memory() as folder:
        if target.whole and forks:  # what it imports is not imported again by each fork
            for number in numbers[:2]:
                in_process(target, made(target, number), folder)
        begun = time.process_time()
        for number in numbers:
            given = made(target, number)
            fault = (_in_fork if target.whole and forks else in_process)(target, given, folder)
            if fault:
                repeated += fault[0] in outcome.faults
                outcome.faults.setdefault(fault[0], (number, fault[1]))
            outcome.tried += 1
            if repeated > REPEATED:
                break
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    outcome.seconds = time.process_time() - begun + children.ru_utime + children.ru_stime
    return outcome


def in_process(target: Target, given: Any, folder: Path) -> tuple[str, str] | None:
    try:
        target.try_one(given, folder, real=True)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return _place(error), _traceback(error)
    return None


def _in_fork(target: Target, given: Any, folder: Path) -> tuple[str, str] | None:
    """Try an input in a fork of this process, which has imported all that it needs."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            fault = in_process(target, given, folder)
            os.write(writer, json.dumps(fault).encode()[:60_000])
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as opened:  # noqa: PTH123, a descriptor
        answer = opened.read()
    os.waitpid(child, 0)
    if target.fills:
        empty(folder)
    fault = json.loads(answer) if answer else ("died", "the process ended without a word")
    return None if fault is None else (fault[0], fault[1])


def limit_memory() -> None:
    """Let what takes very much memory end in a MemoryError; for a process that only does this."""
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY_BYTES, resource.RLIM_INFINITY))


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/mlmodeldev/" in f.filename or "/tests/fuzz/" in f.filename]
    last = ours[-1] if ours else frames[-1]
    return f"{type(error).__name__} {Path(last.filename).name}:{last.lineno}"


def _traceback(error: BaseException) -> str:
    lines = traceback.format_exception(error)
    return "".join(lines[-12:])[-3000:]
