"""A warning that a trial can't answer: a step that never ends must not keep it to the time limit.

Signals are answered between batches (`mlmodeldev.trial.signals`). Where a loader hangs there is no
next batch, Slurm kills the job at its limit, and nothing requeues it. So another thread counts from
the warning on, and gives the attempt up while there is still time to requeue: the trial goes on
from its newest checkpoint. It learns of the signal from its file descriptor, for a main thread that
is in a library's code runs no handler.

Example::

    with giving_up(90, lambda name: end_of(trial)):
        train()                     # which calls `answered` as soon as it begins to save
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""Slurm's early warning. After SIGTERM it requeues by itself, or the user wants no more."""
REQUEUE_SECONDS = 30.0
"""Left between giving up and the limit."""
LEAST_SECONDS = 10.0

_answered: list[threading.Event] = []


def seconds_to_answer(warn_seconds: float) -> float | None:
    """Return how long a trial has to answer a warning; None: nobody warns of a limit.

    Args:
        warn_seconds: from the warning to the limit, ``cluster.warn_seconds``.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return None
    return max(LEAST_SECONDS, warn_seconds - REQUEUE_SECONDS)


def answered() -> None:
    """Note that the trial has taken notice of the signal, and saves."""
    for event in _answered:
        event.set()


@contextlib.contextmanager
def giving_up(seconds: float | None, give_up: Callable[[str], None]) -> Iterator[None]:
    """Call a function in another thread where a warning is not answered in time.

    Args:
        seconds: from the warning on; None: never.
        give_up: takes the signal's name, and ends this process.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    event = threading.Event()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    former = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    arguments = (reading, event, seconds, give_up)
    threading.Thread(target=_watch, args=arguments, daemon=True).start()
    _answered.append(event)
    try:
        yield
    finally:
        _answered.remove(event)
        event.set()
        signal.set_wakeup_fd(former)
        os.close(writing)  # which ends the thread


def _watch(
    reading: int, event: threading.Event, seconds: float, give_up: Callable[[str], None]
) -> None:
    while number := os.read(reading, 1):
        if number[0] in WARNINGS and not event.wait(seconds):
            give_up(signal.Signals(number[0]).name)
    os.close(reading)


def _forget_in_child() -> None:
    # a loader's signals are not this trial's
    if _answered:
        _answered.clear()
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_in_child)
