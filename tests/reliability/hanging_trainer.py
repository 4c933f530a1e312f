"""trainer.py with a hang in it: HANG says which, in a job's first start only.

A sweep's program. When it begins to hang, it writes the time into the file that HANG_NOTE names.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trainer
from model import DualEncoder

if TYPE_CHECKING:
    from mlmodeldev.settings import Settings


def train(settings: Settings) -> trainer.Result:
    """Train as trainer.py does, until something hangs."""
    hang = os.environ.get("HANG", "")
    if hang and os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
        PLANTED[hang]()
    return trainer.train(settings)


def _begin() -> None:
    if os.environ.get("SLURM_PROCID", "0") == "0":
        Path(os.environ["HANG_NOTE"]).write_text(str(time.time()))


def _wait_in_c() -> None:
    """Wait for a semaphore that nobody posts, in a library's code."""
    _begin()
    ctypes.CDLL(None).sem_wait(ctypes.create_string_buffer(64))


def _fill_pipe() -> None:
    _begin()
    with os.fdopen(os.pipe()[1], "wb") as full:
        full.write(b"x" * 1_000_000)


def _stop() -> None:
    _begin()
    os.kill(os.getpid(), signal.SIGSTOP)


def _stop_loader() -> None:
    _begin()
    for worker in multiprocessing.active_children():
        os.kill(worker.pid or 0, signal.SIGSTOP)


def _stop_partner() -> None:
    _begin()
    if os.environ["SLURM_PROCID"] == "1":
        os.kill(os.getpid(), signal.SIGSTOP)


def _at(kind: Any, method: str, call: int, hang: Callable[[], None]) -> Callable[[], None]:
    """Return what lets the call of a method hang that has this number."""

    def plant() -> None:
        function, calls = getattr(kind, method), [0]

        def hanging(*arguments: Any, **named: Any) -> Any:
            calls[0] += 1
            if calls[0] == call:
                hang()
            return function(*arguments, **named)

        setattr(kind, method, hanging)

    return plant


def _in_export() -> None:
    from mlmodeldev.callbacks.export import Export

    _at(Export, "_fill", 2, _wait_in_c)()  # the first is the rehearsal's


def _in_finish() -> None:
    from mlmodeldev.tracking.wandb_rows import RunRows

    _at(RunRows, "finish", 1, _wait_in_c)()


PLANTED: dict[str, Callable[[], None]] = {
    "step": _at(DualEncoder, "training_step", 30, _wait_in_c),
    "loader": _at(DualEncoder, "training_step", 30, _stop_loader),
    "all-reduce": _at(DualEncoder, "training_step", 30, _stop_partner),
    "pipe": _at(DualEncoder, "training_step", 30, _fill_pipe),
    "stopped": _at(DualEncoder, "training_step", 30, _stop),
    "validation": _at(DualEncoder, "validation_step", 10, _wait_in_c),
    "export": _in_export,
    "finish": _in_finish,
}
