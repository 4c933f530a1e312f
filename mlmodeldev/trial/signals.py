"""The one owner of signals: a flag, read between batches.

SIGUSR1 and SIGUSR2 (Slurm's early warning), SIGTERM (preemption, time limit, scancel), SIGINT
(Ctrl-C), SIGHUP (the terminal was closed; ignored under nohup) and SIGXCPU (the limit on CPU time)
only set the flag. A handler that saves would run in the middle of a collective
operation, on some ranks earlier than on others, and hang them all; so all ranks agree at the next
batch boundary instead (see `callbacks/resume.py`).

Example::

    interrupt.listen()
    ...
    if interrupt.requested(): ...
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

from mlmodeldev.errors import TrialInterrupted

STOP_NOTE_VARIABLE = "MLMODELDEV_STOP_NOTE"
"""Names the file by which an agent of ours tells its trial to stop for good."""

SIGNALS = (
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGXCPU,
)

_former: dict[int, Any] = {}
"""The handlers that `listen` has taken the place of."""
_received: list[str] = []
_stop: list[str] = []
_own_note: list[str] = []
"""The file that a trial without an agent looks for."""


def _note(signum: int, frame: FrameType | None) -> None:
    _received.append(signal.Signals(signum).name)
    if signum == signal.SIGINT:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C ends at once


def listen() -> None:
    """Take the signals over; called again after Lightning has put its own handlers there.

    Outside of the main thread Python allows no handlers: the signals then keep their effect.
    """
    import threading

    if threading.current_thread() is not threading.main_thread():
        return
    for signum in SIGNALS:
        if not is_ignored(signum):
            handler = signal.signal(signum, _note)
            _former.setdefault(signum, handler)


def is_ignored(signum: int) -> bool:
    """Whether a signal is to have no effect: that of a closed terminal, under nohup."""
    return signum == signal.SIGHUP and signal.getsignal(signum) is signal.SIG_IGN


def restore() -> None:
    """Give the signals back to whom they were taken from: a script that goes on after a trial."""
    from mlmodeldev.settings.command_line import is_program

    if is_program() or multiprocessing.parent_process() is not None:
        return
    for signum, handler in _former.items():
        signal.signal(signum, signal.SIG_DFL if handler is None else handler)
    _former.clear()


def requested() -> str | None:
    """Return the name of the signal that asked for an end, if one did."""
    return _received[0] if _received else None


def raise_if_requested() -> None:
    """End a wait upon a signal.

    Raises:
        TrialInterrupted: one asked for an end.
    """
    if _received:
        raise TrialInterrupted(
            f"interrupted by {_received[0]} while another process was waited for"
        )


def ask_to_stop(who: str) -> None:
    """Note that this trial is not worth going on with; from any thread."""
    _stop.append(who)


def stopped_by() -> str | None:
    """Return who asked for the trial to end for good (W&B, a search), if anyone did."""
    return _stop[0] if _stop else None


def set_stop_note(file: str) -> None:
    """Set the file whose being there ends this trial for good, if no agent has named another."""
    _own_note[:] = [file]


def stop_note() -> str | None:
    """Return the file whose being there ends this trial for good; None: there is none."""
    own = _own_note[0] if _own_note else None
    return os.environ.get(STOP_NOTE_VARIABLE, own)


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Drop what one trial was asked once it has ended, so that a later one begins undisturbed.

    A signal counts as answered when an exception tells the caller of the end. One that came too
    late for this trial (it is done) is for the caller's next, as in Hydra's ``-m``. The workers of
    a launcher keep theirs: it was all of their trials that were asked to end.
    """
    try:
        yield
    except BaseException:
        if multiprocessing.parent_process() is None:
            _received.clear()
        restore()
        raise
    finally:
        _stop.clear()
        _own_note.clear()


def forget() -> None:
    """Drop what was received, for a process that goes on to train another model."""
    _received.clear()
    _stop.clear()
    _own_note.clear()
