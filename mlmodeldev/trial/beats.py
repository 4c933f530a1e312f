"""Which phase a trial is in, written where another process can read it: no thread need be alive.

One store into shared memory a beat. Where nobody watches (`mlmodeldev.trial.watch`), the memory is
this process's own.

Example::

    beat(Phase.STEP)
    with during(Phase.CHECKPOINT):
        save()
"""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Iterator


class Phase(enum.IntEnum):
    """What a trial is at, from one beat to the next; numbers are places in the memory."""

    START = 1
    EPOCH_START = 2
    STEP = 3
    DATA = 4
    CHECKPOINT = 5
    VALIDATION_START = 6
    VALIDATION_STEP = 7
    VALIDATION_DATA = 8
    VALIDATION_END = 9
    EPOCH_END = 10
    TEST_START = 11
    TEST_STEP = 12
    TEST_DATA = 13
    EXPORT = 14
    FINISH = 15
    END = 16


NAMES = {
    Phase.START: "the preparation",
    Phase.EPOCH_START: "the beginning of an epoch",
    Phase.STEP: "a training step",
    Phase.DATA: "the way to the next training batch",
    Phase.CHECKPOINT: "a checkpoint",
    Phase.VALIDATION_START: "the beginning of a validation",
    Phase.VALIDATION_STEP: "a validation step",
    Phase.VALIDATION_DATA: "the way to the next validation batch",
    Phase.VALIDATION_END: "the end of a validation",
    Phase.EPOCH_END: "the end of an epoch",
    Phase.TEST_START: "the beginning of the test",
    Phase.TEST_STEP: "a test step",
    Phase.TEST_DATA: "the way to the next test batch",
    Phase.EXPORT: "the export",
    Phase.FINISH: "the end of the trackers",
    Phase.END: "the end",
}
"""In a reader's words."""

CELLS = 64
"""Eight bytes each: 0 the present beat, then how often each phase began, from `EXPECTED` on how
many milliseconds it is known to take at most of itself."""
BYTES = 8 * CELLS
EXPECTED = 32
_SHIFT = 8

_own = memoryview(bytearray(BYTES)).cast("Q")


class _Here:
    cells = _own


def beat(phase: int) -> None:
    """Note that a phase begins now, and so that the one before has ended."""
    cells = _Here.cells
    count = cells[phase] + 1
    cells[phase] = count
    cells[0] = count << _SHIFT | phase


@contextlib.contextmanager
def during(phase: Phase) -> Iterator[None]:
    """Be in a phase for a while; then the one before goes on."""
    before = present(_Here.cells)[0]
    beat(phase)
    try:
        yield
    finally:
        beat(before or Phase.END)


def expect(phase: Phase, seconds: float) -> None:
    """Tell how long a phase may take that ends by itself then."""
    _Here.cells[EXPECTED + phase] = int(1000 * seconds)


def present(cells: memoryview[int]) -> tuple[int, int]:
    """Return the phase that a memory shows, and how often it has begun."""
    code = cells[0]
    return code & (1 << _SHIFT) - 1, code >> _SHIFT


def write_into(cells: memoryview[int] | None) -> None:
    """Beat in this memory from now on; None: in this process's own."""
    _Here.cells = _own if cells is None else cells


# a loader's process is no trial
os.register_at_fork(after_in_child=lambda: write_into(None))
