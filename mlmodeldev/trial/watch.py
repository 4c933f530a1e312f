"""A trial under watch: from its claim to its end another process looks whether it moves.

Example::

    watch = begin_watch(folder, seconds=60.0, rank=0, size=1)     # None where nobody can watch
    ...                                                           # beats (`trial.beats`)
    watch.end()
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import mmap
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlmodeldev.trial import beats
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.hang import former_hangs
from mlmodeldev.trial.stacks import SIGNAL

log = logging.getLogger(__name__)

_CODE = (
    "import sys; sys.path.insert(0, sys.argv[1]); from mlmodeldev.trial.watchdog import main;"
    " main()"
)
_DEBUGGERS = ("pydevd", "debugpy", "ipykernel")


class Watch:
    """The watcher of this process, and what it shares with it.

    Args:
        job: what the watcher is told.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self._beats = os.memfd_create("beats")
        self._memory = os.memfd_create("stacks")
        os.ftruncate(self._beats, beats.BYTES)
        beats.write_into(memoryview(mmap.mmap(self._beats, beats.BYTES)).cast("Q"))
        beats.beat(beats.Phase.START)
        self.listen()
        package = str(Path(__file__).resolve().parents[2])
        self._process = subprocess.Popen(
            # without site: started in a hundredth of a second
            [sys.executable, "-I", "-S", "-c", _CODE, package, "watchdog"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(self._beats, self._memory),
        )
        job |= {"beats": self._beats, "memory": self._memory}
        assert self._process.stdin is not None
        with self._process.stdin as stream:
            stream.write(json.dumps(job).encode())

    def listen(self) -> None:
        """Take the signal upon which this process writes its stacks.

        Once more after each fit or test: Lightning gives back what it takes for the handlers of
        before, and of one in C it does not hear.
        """
        faulthandler.unregister(SIGNAL)
        faulthandler.register(SIGNAL, file=self._memory, all_threads=True, chain=False)

    def end(self) -> None:
        """Watch no more."""
        beats.write_into(None)
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(Exception):
            faulthandler.unregister(SIGNAL)
        for descriptor in (self._beats, self._memory):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def begin_watch(
    folder: TrialFolder, seconds: float | None, rank: int = 0, size: int = 1
) -> Watch | None:
    """Let this process be watched; None where it is not wanted, or not possible.

    Where somebody sits at a terminal, or a debugger or a notebook is at work, a hang is only told.

    Args:
        folder: the trial's, claimed.
        seconds: ``training.watchdog_seconds``; None: not at all.
        rank, size: of this process among the trial's.
    """
    if seconds is None or sys.platform != "linux":
        return None
    try:
        return Watch(_job(folder, folder.read(), seconds, rank, size))
    except Exception as error:  # no process left, an old kernel: no reason not to train
        beats.write_into(None)
        log.warning("nobody watches whether this trial hangs: %s", error)
        return None


def _job(
    folder: TrialFolder, record: Mapping[str, Any], seconds: float, rank: int, size: int
) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "folder": str(folder.path),
        "attempt": folder.attempt,
        "token": folder.token,
        "seconds": seconds,
        "rank": rank,
        "size": size,
        "former": former_hangs(record),
        "only_say": _is_attended(),
        "path": sys.path,
    }


def _is_attended() -> bool:
    try:
        at_terminal = os.isatty(0)
    except OSError:
        at_terminal = False
    return at_terminal or any(name in sys.modules for name in _DEBUGGERS)
